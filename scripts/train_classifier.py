"""Trains the classifier whose last hidden layer gives the features of the metrics of digits, or of fd_classifier.

    python -m scripts.train_classifier
    python -m scripts.train_classifier --data="arrays(path='fashion_mnist.npz',pad=2)" --output=classifier.npz

The first line writes flowmaps/metrics/digits_features.npz, in about a minute on a CPU. The second one does the same for
any labelled images, named as in a config with their options in brackets, which it holds in memory. It prints the
accuracy on held-out images and the fingerprint. Training sees the training images alone, shifted by up to a pixel and
with a little noise.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flowmaps import data, lookup
from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics import features
from flowmaps.metrics.digest import sha256_of_arrays
from flowmaps.networks import classifier

OUTPUT = Path(features.__file__).with_name("digits_features.npz")
BATCH, NOISE, HELD_OUT = 128, 0.1, 2_000


class Classifier(classifier.Classifier):
    """The network `classifier`, and the logits of the classes."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes, name="logits")(super().__call__(x)[-1])


def augment(key, x):
    """Shifts every image by -1, 0 or 1 pixel along both axes, background coming in, and adds noise."""
    for_shift, for_noise = jax.random.split(key)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    starts = jax.random.randint(for_shift, (len(x), 2), 0, 3)
    shifted = jax.vmap(lambda image, s: jax.lax.dynamic_slice(image, (*s, 0), x.shape[1:]))(padded, starts)
    return shifted + NOISE * jax.random.normal(for_noise, x.shape)


def train(images, labels, model, steps):
    """The trained parameters."""
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-3)
    params = jax.jit(model.init)(jax.random.key(0), images[:1])

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
    for key in jax.random.split(jax.random.key(1), steps):
        params, state = update(params, state, key)
    return params["params"]


def run(text: str, output: Path, steps: int) -> str:
    """Trains on the data set of a text such as "arrays(path='images.npz')", writes the file, and says what it reached.
    Raises UsageError where the data are no labelled images, or fewer than a batch."""
    name, options = lookup.parse_call("--data", text)
    dataset = data.load(name, **options)
    if dataset.kind not in ("digits", "image") or not dataset.num_classes or len(dataset.train) < BATCH:
        raise UsageError(f"--data={text!r}: a classifier learns from images with labels, at least {BATCH} of them")
    seen, model = batch(dataset.train), Classifier(dataset.shape, dataset.num_classes)
    params = train(jnp.asarray(seen["x1"]), jnp.asarray(seen["label"]), model, steps)
    weights = {f"{layer}/{part}": np.asarray(a) for layer, parts in params.items() for part, a in parts.items()}
    np.savez_compressed(output, data=dataset.fingerprint, **weights)
    return f"{output}: {accuracy(model, params, dataset.test)}, {sha256_of_arrays(weights)}"


def accuracy(model: Classifier, params, source: data.Source | None) -> str:
    """On held-out images, or some of them, where there are any."""
    if source is None:
        return "no image is held out"
    held_out = batch(source, HELD_OUT)
    guesses = np.argmax(jax.jit(model.apply)({"params": params}, held_out["x1"]), axis=1)
    return f"accuracy {np.mean(guesses == held_out['label']):.4f}"


def batch(source: data.Source, most: int | None = None) -> dict[str, np.ndarray]:
    """The examples of a source as they are stored, or the first of them."""
    return data.as_stored(source).batch(np.arange(len(source))[:most])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="labelled images, such as \"folder(dir='/my/images')\"")
    parser.add_argument("--output", type=Path, help="the file to write; by default classifier.npz, or the digits' own")
    parser.add_argument("--steps", type=int, default=1_500, help=f"of training, each of {BATCH} images")
    given = parser.parse_args(arguments)
    try:
        default = OUTPUT if given.data == "digits" else Path("classifier.npz")
        print(run(given.data, given.output or default, given.steps))
    except (UsageError, MissingError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
