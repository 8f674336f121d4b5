"""What the parts of a config may not be together: each check raises UsageError, in one line, or does nothing."""

import math

from ml_collections import ConfigDict

from flowmaps import data, trained
from flowmaps.errors import UsageError
from flowmaps.types import Guided, Method


def gaussian_source(config: ConfigDict, dataset: data.Dataset) -> bool:
    """Whether x0 is Gaussian and independent of x1, so that a velocity tells the score."""
    return config.coupling.name == "independent" and dataset.source is None


def source(config: ConfigDict, method: Method, dataset: data.Dataset) -> None:
    """Raises UsageError for a method whose formulas hold for a Gaussian source alone, and has another."""
    if method.gaussian_source and not gaussian_source(config, dataset):
        raise UsageError(
            f"method {config.method.name!r} with these options needs a Gaussian source independent of the data: set "
            "coupling.name to 'independent' and leave out data.source"
        )


def players(config: ConfigDict, method: Method) -> None:
    """Raises UsageError for a period in which a player never learns, and for what config.players says in vain."""
    for player, period in method.periods.items():
        if not 1 <= period <= config.train.steps:
            raise UsageError(
                f"method {config.method.name!r} updates its {player} every {period} steps: this must be at least 1 and "
                f"at most train.steps={config.train.steps}"
            )
    for role, section in config.players.items():
        if "optimizer" in section and role not in method.losses:
            raise UsageError(
                f"players.{role}.optimizer is of no player: those of method {config.method.name!r} are "
                f"{', '.join(method.losses)}"
            )
        if "network" in section and role in method.init:
            raise UsageError(f"players.{role}.network is given, and {role!r} has that of the {method.init[role]}")


def features(config: ConfigDict, method: Method, dataset: data.Dataset) -> None:
    """Raises UsageError where images are to be compared by their features, and the data are none."""
    if "features" in method.owners and len(dataset.shape) != 3:
        raise UsageError(
            f"method {config.method.name!r} with these options compares images by their features, and an example of "
            f"data {config.data.name!r} has the shape {dataset.shape}: compare it by its numbers, and let a critic see "
            "'samples'"
        )


def scales(config: ConfigDict) -> dict[float, str]:
    """The scales of guidance that samples are asked for, and the fields that ask for them."""
    return {**dict.fromkeys(config.eval.guidance, "eval.guidance"), config.guidance.scale: "guidance.scale"}


def guidance(config: ConfigDict, dataset: data.Dataset) -> None:
    """Raises UsageError where sampling is to leave out the label, and there is none, or the network always had it."""
    if trained.named(config.guidance.weak) is not None:
        return
    for scale, field in scales(config).items():
        if scale != 1 and dataset.num_classes == 0:
            raise UsageError(f"{field}={scale} needs labels, and data {config.data.name!r} has none")
        if scale != 1 and config.method.get("label_dropout", 0.0) == 0:
            raise UsageError(
                f"{field}={scale} needs a network that knows unlabelled data too: train it with "
                "method.label_dropout above 0, for example 0.1, or guide it by a weaker run, guidance.weak"
            )


def learned_guidance(config: ConfigDict, learned: Guided) -> None:
    """Raises UsageError where sampling asks a network for guidance that it takes as an input and has not learned."""
    interval, weak = tuple(config.guidance.interval), trained.named(config.guidance.weak)
    for scale, field in scales(config).items():
        if not learned.low <= scale <= learned.high:
            raise UsageError(
                f"{field}={scale} is not among what method.guidance={(learned.low, learned.high)} trains: set "
                "it to one of these"
            )
    if weak is not None:
        raise UsageError(f"guidance.weak={weak!r}: method {config.method.name!r} has learned guidance of its own")
    if interval != (0.0, 1.0) and not learned.intervals:
        raise UsageError(f"guidance.interval={interval}: {config.method.name} trains the whole of (0, 1) alone")


def teacher(config: ConfigDict, method: Method) -> None:
    """Raises UsageError for a teacher that the method never asks, or does ask and has not; and where the student is its
    own first teacher, for another one or no weights to start from."""
    given = trained.named(config.teacher.workdir) is not None
    if method.init.get("teacher") == "student":
        promoted_teacher(config)
    elif given and not method.teacher:
        raise UsageError(
            f"method {config.method.name!r} with these options asks no teacher, and teacher.workdir="
            f"{config.teacher.workdir!r} names one: leave it out, or choose a method of docs/distillation.md or "
            "docs/matching.md"
        )
    elif method.teacher and not given:
        raise UsageError(
            f"method {config.method.name!r} with these options asks a teacher: set teacher.workdir to a trained run"
        )


def pairs(config: ConfigDict, method: Method) -> None:
    """Raises UsageError for a method that learns from stored pairs, and has none."""
    if method.pairs and "pairs" not in config.coupling:
        raise UsageError(
            f"method {config.method.name!r} learns from stored pairs: set coupling.name to 'stored' and coupling.pairs"
        )


def averages(config: ConfigDict, method: Method) -> None:
    """Raises UsageError for averages of a run in stages, which would be over the students of several."""
    if method.stages and config.train.ema:
        raise UsageError(
            f"train.ema={config.train.ema} of method {config.method.name!r} would be over the students of several "
            "stages: set train.ema to () and eval.ema to (-1,)"
        )


def promoted_teacher(config: ConfigDict) -> None:
    """Raises UsageError where a student that is its own first teacher has no weights to start from, or is given another
    teacher."""
    if trained.named(config.init_from) is None:
        raise UsageError(f"method {config.method.name!r} starts from a trained model: set init_from to its workdir")
    if trained.named(config.teacher.workdir) is not None or config.teacher.guidance.scale != 1:
        raise UsageError(
            f"method {config.method.name!r} has its own student as its teacher: leave out what is set of teacher, and "
            "name the model that it starts from in init_from"
        )


def prediction(config: ConfigDict, method: Method) -> None:
    """Raises UsageError where the prediction knows one end and the method trains maps to others."""
    if config.prediction.name == "two_clocks" and not method.one_end:
        raise UsageError(
            f"prediction 'two_clocks' asks for the map to the path's end alone, and method {config.method.name!r} "
            "trains others: choose velocity"
        )


def ranges(config: ConfigDict) -> None:
    """Raises UsageError for a decay, an interval or a share of labels outside its range or its place."""
    if "ema" in config.players.get("student", {}):
        raise UsageError("players.student.ema: the decays of the student's averages are train.ema")
    kept = {"train": config.train.ema} | {f"players.{role}": own.get("ema", ()) for role, own in config.players.items()}
    for section, decays in kept.items():
        if not all(0 <= decay < 1 for decay in decays):
            raise UsageError(f"{section}.ema={decays}: a decay lies in [0, 1)")
    for name, guidance in (("guidance", config.guidance), ("teacher.guidance", config.teacher.get("guidance"))):
        if guidance is not None and len(guidance.interval) != 2:
            raise UsageError(f"{name}.interval={guidance.interval} must be two times")
        if guidance is not None and not math.isfinite(guidance.scale):
            raise UsageError(f"{name}.scale={guidance.scale} must be a number; 1: none")
    if not 0 <= config.method.get("label_dropout", 0.0) <= 1:
        raise UsageError(f"method.label_dropout={config.method.label_dropout} must lie in [0, 1]")
