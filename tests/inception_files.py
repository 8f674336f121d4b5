"""Weights of Inception-v3's shapes that a few lines of numpy make, as files in the layout of the real ones."""

import numpy as np

from flowmaps.metrics import inception


def weights(seed=2015):
    """Arrays that keep activations of the order of one: by name, each from its own draw."""
    shapes = inception.shapes()
    return {name: _array(np.random.default_rng((seed, i)), name, shapes[name]) for i, name in enumerate(sorted(shapes))}


def _array(draw, name, shape):
    if name.endswith(("bias", "running_mean")):
        array = draw.normal(0, 0.1, shape)
    elif len(shape) == 1:
        array = draw.uniform(0.5, 1.5, shape)
    else:
        array = draw.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return array.astype(np.float32)


def images():
    """One of noise and one of squares, 40 x 32."""
    draw = np.random.default_rng(299)
    noise = draw.integers(0, 256, (40, 32, 3), np.uint8)
    return np.stack([noise, np.kron(draw.integers(0, 256, (5, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))])


def write(path, seed=2015):
    """A file that passes every check of the real one, and the arrays in it."""
    made = weights(seed)
    path.write_bytes(inception.packed(made, inception.SOURCE_SHA256))
    return made
