"""Trains the classifier whose last hidden layer gives the features of the digits metrics (about a minute on a CPU).

    python -m scripts.train_digits_features

writes flowmaps/metrics/digits_features.npz and prints the accuracy on the held-out digits and the fingerprint.
Training sees the 1,500 training digits alone, shifted by up to a pixel and with a little noise.
"""

import argparse
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flowmaps import data
from flowmaps.metrics import features
from flowmaps.metrics.digest import sha256_of_arrays

OUTPUT = Path(features.__file__).with_name("digits_features.npz")
STEPS, BATCH, NOISE = 1500, 128, 0.1


class Classifier(nn.Module):
    """Three 3 x 3 convolutions, a hidden layer of 64 and ten logits, as flowmaps/metrics/features.py evaluates it."""

    @nn.compact
    def __call__(self, x):
        for (name, stride), width in zip(features.STRIDES.items(), (32, 64, 64), strict=True):
            x = nn.relu(nn.Conv(width, (3, 3), strides=stride, padding=1, name=name)(x))
        x = nn.relu(nn.Dense(64, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(10, name="logits")(x)


def augment(key, x):
    """Shifts every image by -1, 0 or 1 pixel along both axes, background coming in, and adds noise."""
    for_shift, for_noise = jax.random.split(key)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    starts = jax.random.randint(for_shift, (len(x), 2), 0, 3)
    shifted = jax.vmap(lambda image, s: jax.lax.dynamic_slice(image, (*s, 0), (8, 8, 1)))(padded, starts)
    return shifted + NOISE * jax.random.normal(for_noise, x.shape)


def train(images, labels):
    """The trained parameters."""
    model, optimizer = Classifier(), optax.adamw(optax.cosine_decay_schedule(2e-3, STEPS), weight_decay=1e-3)
    params = model.init(jax.random.key(0), images[:1])

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def update(params, state, key):
        for_rows, for_images = jax.random.split(key)
        rows = jax.random.choice(for_rows, len(images), (BATCH,), replace=False)
        grads = jax.grad(loss)(params, augment(for_images, images[rows]), labels[rows])
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for key in jax.random.split(jax.random.key(1), STEPS):
        params, state = update(params, state, key)
    return params["params"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the file to write")
    output = parser.parse_args().output

    dataset = data.load("digits")
    seen, held_out = (s.batch(np.arange(len(s))) for s in (dataset.train, dataset.test))
    params = train(jnp.asarray(seen["x1"]), jnp.asarray(seen["label"]))
    weights = {f"{layer}/{part}": np.asarray(a) for layer, parts in params.items() for part, a in parts.items()}
    np.savez_compressed(output, data=dataset.fingerprint, **weights)

    hidden = features.hidden(weights, held_out["x1"])
    guesses = features.dense(weights, "logits", hidden).argmax(axis=1)
    print(f"{output}: accuracy {np.mean(guesses == held_out['label']):.4f}, {sha256_of_arrays(weights)}")


if __name__ == "__main__":
    main()
