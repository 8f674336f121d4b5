"""`--mode=stats`: the statistics of a data set's own images, which those of samples are held against.

They are of all training images as they are stored, and are made where they are needed; this mode makes them before.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

import flowmaps
from flowmaps import experiment, metrics, observer, sharding, trained
from flowmaps.data import Dataset
from flowmaps.errors import UsageError
from flowmaps.files import write_whole
from flowmaps.metrics import classifier, inception, statistics
from flowmaps.metrics.digest import sha256_of_arrays
from flowmaps.metrics.statistics import Reference
from flowmaps.observer import Look
from flowmaps.workdir import versions

NETWORKS = {"inception": inception, "classifier": classifier}
"""Those that make features of images; the field of config.eval with this name says where the weights are."""
VARIABLE = "FLOWMAPS_INCEPTION"
"""The variable that says where Inception's weights are, where config.eval.inception does not."""


class Eyes(NamedTuple):
    """The network that looks at images, on the devices."""

    look: Look
    mesh: Mesh
    protocol: dict[str, str]
    """How images become features, and by which weights."""
    dimensions: tuple[int, int]
    """Of features, `pool` and `spatial`."""


def run(config: ConfigDict) -> dict[str, Any]:
    """Makes the statistics of config.data in the folder config.eval.statistics, unless they are there, and says where.

    Raises UsageError where the data are no images, MissingError where they or the network's weights are not there.
    """
    dataset = experiment.load_data(config.data)
    if dataset.kind != "image":
        raise UsageError(f"--mode=stats is of images, and data {config.data.name!r} are {dataset.kind} data")
    eyes = open_eyes(config, sharding.make_mesh(config.mesh.data, config.mesh.fsdp))
    facts = of_data(dataset, eyes.protocol)
    own(config, dataset, eyes)
    return {"mode": "stats", "statistics": str(place(config, facts)), **facts}


def check(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UsageError or MissingError where the metrics of config.eval are of two networks, the weights are not there
    or of other images, or where config.eval.reference names statistics that are not there, do not compare, or lack what
    a metric reads."""
    name = network(config)
    weights = NETWORKS[name].read(weights_path(config, name))
    if name == "classifier" and dataset.coding is None:
        classifier.check_images(weights, dataset.shape, weights_path(config, name))
    path = trained.named(config.eval.reference)
    if path is None and dataset.coding is not None:
        raise UsageError(
            "samples of latents are measured as images, and these data hold none: set eval.reference to statistics of "
            "the images, which --mode=stats makes where data are the images themselves"
        )
    if path is None:
        return
    reference = read(path, expected(dataset, protocol(name, weights)), NETWORKS[name].DIMENSIONS)
    for name in metrics.of_features(config.eval.metrics):
        if getattr(reference, metrics.load(name).reads) is None:
            raise UsageError(
                f"metric {name!r} reads more than mu and sigma, and eval.reference={path!r} has no more: leave one out"
            )


def network(config: ConfigDict) -> str:
    """The one of NETWORKS that the metrics of config.eval look through; Inception-v3 where there are none. Raises
    UsageError where there are two."""
    found = {metrics.load(name).network for name in metrics.of_features(config.eval.metrics)} or {"inception"}
    if len(found) > 1:
        raise UsageError(
            f"eval.metrics={config.eval.metrics} look at images through {' and '.join(sorted(found))}: measure with "
            "the metrics of one, and then with those of the other"
        )
    return found.pop()


def open_eyes(config: ConfigDict, mesh: Mesh) -> Eyes:
    """The network of config.eval with its weights. Raises as `network`, and as the `read` of its module."""
    name = network(config)
    module, weights = NETWORKS[name], NETWORKS[name].read(weights_path(config, name))
    look = observer.make(module.apply, module.variables(weights), mesh)
    return Eyes(look, mesh, protocol(name, weights), module.DIMENSIONS)


def weights_path(config: ConfigDict, name: str) -> str | None:
    """Where the config says that the weights of one of NETWORKS are, or of Inception else the environment."""
    return trained.named(config.eval[name]) or (os.environ.get(VARIABLE) if name == "inception" else None)


def protocol(name: str, weights: Mapping[str, np.ndarray]) -> dict[str, str]:
    """How images become features by one of NETWORKS with these weights."""
    return {**NETWORKS[name].PROTOCOL, "weights_sha256": sha256_of_arrays(weights)}


def reference(config: ConfigDict, dataset: Dataset, eyes: Eyes) -> Reference:
    """The statistics that config.eval.reference names, or else the data set's own."""
    path = trained.named(config.eval.reference)
    return own(config, dataset, eyes) if path is None else read(path, expected(dataset, eyes.protocol), eyes.dimensions)


def own(config: ConfigDict, dataset: Dataset, eyes: Eyes) -> Reference:
    """The statistics of all training images, from the folder config.eval.statistics; made and put there where any
    process does not find them."""
    facts = of_data(dataset, eyes.protocol)
    path = place(config, facts)
    if sharding.everywhere(eyes.mesh, path.is_file()):
        return read(path, facts, eyes.dimensions)
    count = len(dataset.train)
    logging.info("looking at the %d training images, once: %s", count, path)
    made = statistics.of_summary(observer.of_source(eyes.look, dataset.train, count), about(facts))
    if jax.process_index() == 0:
        write_whole(path, statistics.packed(made, facts))
    return made


def of_data(dataset: Dataset, protocol: Mapping[str, str]) -> dict[str, Any]:
    """All that the statistics of a data set's training images depend on, and what made them."""
    return {
        **protocol,
        "data": dataset.fingerprint,
        "shape": "x".join(map(str, dataset.shape)),
        "num_images": len(dataset.train),
        "versions": json.dumps({"flowmaps": flowmaps.__version__, **versions()}),
    }


def expected(dataset: Dataset, protocol: Mapping[str, str]) -> dict[str, Any]:
    """What the statistics that samples are held against must have been made of and by. Of latents the images are not
    known here, and the file says which they are."""
    facts = of_data(dataset, protocol)
    unknown = () if dataset.coding is None else ("data", "shape", "num_images")
    return {name: value for name, value in facts.items() if name not in unknown}


def place(config: ConfigDict, facts: Mapping[str, Any]) -> Path:
    """The file of a data set's own statistics, named after what they depend on."""
    return Path(config.eval.statistics) / f"{config.data.name}_{facts['data']}_{facts['weights_sha256'][:8]}.npz"


def read(path: str | Path, facts: Mapping[str, Any], dimensions: tuple[int, int]) -> Reference:
    """The statistics in a file, of these data where it says of which they are."""
    return statistics.read(path, facts, dimensions, about)


def about(facts: Mapping[str, Any]) -> str:
    """What numbers are held against, in words."""
    return (
        f"{int(facts['num_images']):,} training images {facts['data']}; {facts['feature']}, {facts['resize']}, "
        f"{facts['scaling']}, uint8 {facts['uint8']}, weights {facts['weights_sha256'][:8]}"
    )
