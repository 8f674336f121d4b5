"""`--mode=stats`: the statistics of a data set's own images, which those of samples are held against.

They are of all training images as they are stored, and are made where they are needed; this mode makes them before.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

import flowmaps
from flowmaps import experiment, metrics, observer, sharding, trained
from flowmaps.data import Dataset
from flowmaps.errors import UsageError
from flowmaps.files import write_whole
from flowmaps.metrics import inception, statistics
from flowmaps.metrics.digest import sha256_of_arrays
from flowmaps.metrics.statistics import Reference
from flowmaps.observer import Look
from flowmaps.workdir import versions

VARIABLE = "FLOWMAPS_INCEPTION"
"""The variable that says where the network's weights are, where config.eval.inception does not."""


class Eyes(NamedTuple):
    """The network that looks at images, on the devices."""

    look: Look
    mesh: Mesh
    weights_sha256: str


def run(config: ConfigDict) -> dict[str, Any]:
    """Makes the statistics of config.data in the folder config.eval.statistics, unless they are there, and says where.

    Raises UsageError where the data are no images, MissingError where they or the network's weights are not there.
    """
    dataset = experiment.load_data(config.data)
    if dataset.kind != "image":
        raise UsageError(f"--mode=stats is of images, and data {config.data.name!r} are {dataset.kind} data")
    eyes = open_eyes(config, sharding.make_mesh(config.mesh.data, config.mesh.fsdp))
    facts = of_data(dataset, eyes.weights_sha256)
    own(config, dataset, eyes)
    return {"mode": "stats", "statistics": str(place(config, facts)), **facts}


def check(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UsageError or MissingError where the weights are not there, or where config.eval.reference names
    statistics that are not there, do not compare, or lack what a metric of config.eval reads."""
    weights = inception.read(weights_path(config))
    path = trained.named(config.eval.reference)
    if path is None and dataset.coding is not None:
        raise UsageError(
            "samples of latents are measured as images, and these data hold none: set eval.reference to statistics of "
            "the images, which --mode=stats makes where data are the images themselves"
        )
    if path is None:
        return
    reference = read(path, expected(dataset, sha256_of_arrays(weights)))
    for name in metrics.of_features(config.eval.metrics):
        if getattr(reference, metrics.load(name).reads) is None:
            raise UsageError(
                f"metric {name!r} reads more than mu and sigma, and eval.reference={path!r} has no more: leave one out"
            )


def open_eyes(config: ConfigDict, mesh: Mesh) -> Eyes:
    """The network with the weights of config.eval.inception or FLOWMAPS_INCEPTION. Raises as `inception.read`."""
    weights = inception.read(weights_path(config))
    look = observer.make(inception.apply, inception.variables(weights), mesh)
    return Eyes(look, mesh, sha256_of_arrays(weights))


def weights_path(config: ConfigDict) -> str | None:
    """Where the config, or else the environment, says that the weights are."""
    return trained.named(config.eval.inception) or os.environ.get(VARIABLE)


def reference(config: ConfigDict, dataset: Dataset, eyes: Eyes) -> Reference:
    """The statistics that config.eval.reference names, or else the data set's own."""
    path = trained.named(config.eval.reference)
    return own(config, dataset, eyes) if path is None else read(path, expected(dataset, eyes.weights_sha256))


def own(config: ConfigDict, dataset: Dataset, eyes: Eyes) -> Reference:
    """The statistics of all training images, from the folder config.eval.statistics; made and put there where any
    process does not find them."""
    facts = of_data(dataset, eyes.weights_sha256)
    path = place(config, facts)
    if sharding.everywhere(eyes.mesh, path.is_file()):
        return read(path, facts)
    count = len(dataset.train)
    logging.info("looking at the %d training images, once: %s", count, path)
    made = statistics.of_summary(observer.of_source(eyes.look, dataset.train, count), about(facts))
    if jax.process_index() == 0:
        write_whole(path, statistics.packed(made, facts))
    return made


def of_data(dataset: Dataset, weights_sha256: str) -> dict[str, Any]:
    """All that the statistics of a data set's training images depend on, and what made them."""
    return {
        **inception.PROTOCOL,
        "weights_sha256": weights_sha256,
        "data": dataset.fingerprint,
        "shape": "x".join(map(str, dataset.shape)),
        "num_images": len(dataset.train),
        "versions": json.dumps({"flowmaps": flowmaps.__version__, **versions()}),
    }


def expected(dataset: Dataset, weights_sha256: str) -> dict[str, Any]:
    """What the statistics that samples are held against must have been made of and by. Of latents the images are not
    known here, and the file says which they are."""
    facts = of_data(dataset, weights_sha256)
    unknown = () if dataset.coding is None else ("data", "shape", "num_images")
    return {name: value for name, value in facts.items() if name not in unknown}


def place(config: ConfigDict, facts: Mapping[str, Any]) -> Path:
    """The file of a data set's own statistics, named after what they depend on."""
    return Path(config.eval.statistics) / f"{config.data.name}_{facts['data']}_{facts['weights_sha256'][:8]}.npz"


def read(path: str | Path, facts: Mapping[str, Any]) -> Reference:
    """The statistics in a file, of these data where it says of which they are."""
    return statistics.read(path, facts, inception.DIMENSIONS, about)


def about(facts: Mapping[str, Any]) -> str:
    """What numbers are held against, in words."""
    return (
        f"{int(facts['num_images']):,} training images {facts['data']}; {facts['feature']}, {facts['resize']}, "
        f"{facts['scaling']}, uint8 {facts['uint8']}, weights {facts['weights_sha256'][:8]}"
    )
