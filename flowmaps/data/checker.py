"""The checkerboard of Boffi, Albergo, Vanden-Eijnden 2025 (arXiv:2505.18825): 8 of the 16 squares of [-1, 1]^2.

With u, v in [0, 1) the coordinates in units of the board, a square is occupied where floor(4u) + floor(4v) is
even; so the corner [-1, -1/2)^2 is, and the density is 1/2 on an area of 2. Each coordinate has variance 1/3.
"""

import numpy as np
from jaxtyping import Float, Float64, Int

from flowmaps.data._dataset import Dataset, Modes
from flowmaps.data._plane import plane


def make() -> Dataset:
    """The board has no options."""
    return plane("checker", {}, _law, uniforms=2, log_density=log_density, modes=Modes(8, mode))


def log_density(x: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, " n"]:
    """log rho(x): -log 2 on the occupied squares, half open towards larger coordinates, -inf elsewhere."""
    return np.where(mode(x) >= 0, -np.log(2), -np.inf)


def mode(x: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    """The occupied square that each point lies in, counted along the second axis first; -1 elsewhere."""
    square = np.floor(2 * (np.asarray(x, np.float64) + 1))
    occupied = ((square >= 0) & (square < 4)).all(axis=1) & (square.sum(axis=1) % 2 == 0)
    return np.where(occupied, square @ (4, 1) // 2, -1).astype(int)


def _law(u: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    # With 24 bits a float32 holds every point exactly: no rounding moves one across an edge.
    across, up = np.floor(u * 2**24).T / 2**24
    row, pair = np.floor(4 * up), np.floor(2 * across)
    column = 2 * pair + row % 2
    within = 2 * across - pair
    return np.stack([(column + within) / 2 - 1, 2 * up - 1], axis=1)
