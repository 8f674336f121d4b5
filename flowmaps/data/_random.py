"""Counter-based random numbers in numpy: a draw is a function of its key, so rows may be drawn in any order.

The mixer and the sequence are SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators"): integer arithmetic alone, hence the same on every machine and with every version of numpy.
"""

import numpy as np
from jaxtyping import Float32, Float64, Int, UInt64

Keys = UInt64[np.ndarray, " n"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keys(seed: int, *fields: int | Int[np.ndarray, " n"]) -> Keys:
    """One key a row from a seed and whole numbers, given for all rows ([1] where no field has rows) or one a row."""
    key = _mix(_words(seed) + _GOLDEN)
    for field in fields:
        key = _mix((key + _GOLDEN) ^ _mix(_words(field) + _GOLDEN))
    return key


def bits(key: Keys, count: int) -> UInt64[np.ndarray, "n count"]:
    """The first `count` words of the SplitMix64 sequence that starts from each key."""
    return _mix(key[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))


def uniforms(key: Keys, count: int) -> Float64[np.ndarray, "n count"]:
    """`count` draws a row from [0, 1), multiples of 2^-53."""
    return (bits(key, count) >> np.uint64(11)) * 2.0**-53


def coins(key: Keys) -> np.ndarray:
    """One fair draw of True or False a row."""
    return bits(key, 1)[:, 0] >> np.uint64(63) == 1


def permutation(size: int, seed: int, *fields: int) -> Int[np.ndarray, " size"]:
    """A permutation of range(size): the order of the rows' keys."""
    return np.argsort(keys(seed, *fields, np.arange(size)), kind="stable")


def gaussian(u: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Two independent standard normals a row from two uniforms (Box and Muller 1958)."""
    radius, angle = np.sqrt(-2 * np.log1p(-u[:, 0])), 2 * np.pi * u[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def normals(key: Keys, count: int) -> Float32[np.ndarray, "n count"]:
    """`count` independent standard normals a row, two from 48 bits of each word (Box and Muller 1958): in single
    precision, for there are thousands to an example."""
    words = bits(key, -(-count // 2))
    u = ((words >> np.uint64(40)).astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)
    angle = (words & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2 * np.pi * 2**-24)
    radius = np.sqrt(-2 * np.log(u))
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]


def _words(value: int | np.ndarray) -> np.ndarray:
    return np.atleast_1d(np.asarray(value, np.int64)).astype(np.uint64)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
