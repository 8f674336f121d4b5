"""From a config to a model: its method, its path, and what its network's outputs stand for; a teacher as a student."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from flowmaps import adversaries, checks, interpolants, lookup, methods, predictions, trained
from flowmaps.errors import UsageError
from flowmaps.guidance import Autoguided, ClassifierFree
from flowmaps.interpolants import Interpolant
from flowmaps.types import Method, Roles, Velocity

Reading = Callable[[Velocity], Velocity]
"""A network as a function -> the velocity that it stands for."""


class Model(NamedTuple):
    """What a run made, or makes, of its student."""

    config: ConfigDict
    method: Method
    interpolant: Interpolant


TEACHERS = {"teacher": "workdir", "weak_teacher": "weak"}
"""Role -> the field of config.teacher that names its run."""


def options(section: ConfigDict) -> dict[str, Any]:
    """The section of a part without the part's name."""
    return {name: value for name, value in section.items() if name != "name"}


def make_method(config: ConfigDict, interpolant: Interpolant) -> Method:
    """The method, told the path and the length of the run."""
    given = {"interpolant": interpolant, "total_steps": config.train.steps}
    name = config.method.name
    method = lookup.call(f"method {name}", methods.load(name).make, given, options(config.method))
    opposed = {"method": method, "interpolant": interpolant}
    return lookup.call("adversary", adversaries.opposed, opposed, options(config.adversary))


def reading(model: Model, path: Interpolant) -> Reading:
    """Network -> velocity on `path`: by the config's prediction, or by the method where it reads the network itself, on
    the model's own path, and carried from there where that is another one.

    Raises UsageError where the config asks for both, or the prediction is not one of its path.
    """
    config, method, own = model
    name = config.prediction.name
    predictions.check_start(name, own)
    if method.heads * predictions.outputs(name) > max(method.heads, predictions.outputs(name)):
        raise UsageError(f"prediction {name!r} reads two outputs as one, and method {config.method.name!r} has its own")
    if method.model is None:
        read = predictions.make(name, interpolant=own, **options(config.prediction))
    elif name == "velocity":
        read = method.model
    else:
        raise UsageError(f"method {config.method.name!r} reads its network itself: set prediction.name to 'velocity'")
    if own is path:
        return read
    return lambda network: predictions.on_another_path(read(network), own, path)


def make_path(config: ConfigDict) -> Interpolant:
    """The interpolant of a config."""
    return interpolants.make(config.interpolant.name, source_std=config.coupling.scale, **options(config.interpolant))


def same_path(one: ConfigDict, other: ConfigDict) -> bool:
    """Whether two configs have one path and one source; that one of them is locked makes no difference."""
    same = one.interpolant.to_dict() == other.interpolant.to_dict()
    return same and one.coupling.scale == other.coupling.scale


def teacher_configs(config: ConfigDict) -> dict[str, ConfigDict]:
    """By role, the configs of the runs that config.teacher names.

    Raises MissingError where there is no such run, UsageError where its data are others or the weaker one comes alone.
    """
    named = {role: field for role, field in TEACHERS.items() if trained.named(config.teacher.get(field)) is not None}
    if set(named) == {"weak_teacher"}:
        raise UsageError(f"teacher.weak={config.teacher.weak!r} guides a teacher: set teacher.workdir too")
    found = {role: trained.read(Path(config.teacher[field]), f"teacher.{field}") for role, field in named.items()}
    for role, teacher in found.items():
        trained.check_same(teacher, config, ("data.name", "data.source"), f"teacher.{named[role]}")
    return found


def teacher_model(student: Model, teacher: ConfigDict) -> Model:
    """A teacher on its own path, which is the student's where the two are equal.

    Raises UsageError where it cannot be asked on the student's path.
    """
    config, same = student.config, same_path(teacher, student.config)
    path = student.interpolant if same else make_path(teacher)
    model = Model(teacher, make_method(teacher, path), path)
    if model.method.model is not None and student.method.model is None:
        raise UsageError(
            f"teacher.workdir={config.teacher.workdir!r} knows states with a latent, which method "
            f"{config.method.name!r} does not make"
        )
    check_asked(student, model, same)
    asked = f"teacher.guidance.scale={config.teacher.guidance.scale}"
    if student.method.guidance is not None:
        asked = f"method.guidance={config.method.guidance}"
    guided = student.method.guidance is not None or config.teacher.guidance.scale != 1
    alone = trained.named(config.teacher.weak) is None
    if guided and alone and teacher.method.get("label_dropout", 0.0) == 0:
        raise UsageError(
            f"{asked} needs a teacher that knows unlabelled data too: train it with method.label_dropout above 0, or "
            "guide it by a weaker one, teacher.weak"
        )
    if not same and (teacher.coupling.name, config.coupling.name) != ("independent", "independent"):
        raise UsageError(
            f"teacher.workdir={config.teacher.workdir!r} is on another path, of coupling {teacher.coupling.name!r} for "
            f"{config.coupling.name!r}: only between independent Gaussian sources is a velocity carried over"
        )
    return model


def weak_model(student: Model) -> Model | None:
    """The model that config.guidance.weak names, by which samples are guided; None where it names none.

    Raises MissingError where there is no such run, UsageError where it is of other data or another kind, or guides at
    no scale.
    """
    workdir = trained.named(student.config.guidance.weak)
    if workdir is None:
        return None
    config, what = trained.read(Path(workdir), "guidance.weak"), f"guidance.weak={workdir!r}"
    trained.check_same(config, student.config, ("data.name", "data.source"), "guidance.weak")
    path = student.interpolant if same_path(config, student.config) else make_path(config)
    model = Model(config, make_method(config, path), path)
    alike = [(method.diagonal_only, method.one_end) for method in (student.method, model.method)]
    if alike[0] != alike[1] or model.method.guidance is not None or model.method.model is not None:
        raise UsageError(
            f"{what} is a run of method {config.method.name!r}, whose velocities are of another kind than those of "
            f"{student.config.method.name!r}: name a weaker run of the same one"
        )
    if path is not student.interpolant and not student.method.diagonal_only:
        raise UsageError(f"{what} is on another path, to which its map cannot be carried: give both one interpolant")
    if set(checks.scales(student.config)) == {1}:
        raise UsageError(f"{what} guides at no scale: set guidance.scale or eval.guidance")
    return model


def check_asked(student: Model, teacher: Model, same: bool) -> None:
    """Raises UsageError where the student's losses ask the teacher what it has not learned, or guidance of it that
    would not be theirs."""
    wanted, name, section = student.method.teacher, teacher.config.method.name, student.config.teacher
    what = f"teacher.workdir={section.workdir!r} is a run of method {name!r}, which"
    of_map = wanted in ("map", "map to the end")
    if wanted == "velocity" and not teacher.method.diagonal:
        raise UsageError(f"{what} learns no velocity: name a run of flow matching, diffusion or a map of all times")
    if of_map and teacher.method.diagonal_only:
        raise UsageError(f"{what} learns the velocity alone, and {student.config.method.name!r} asks a map")
    if wanted == "map" and teacher.method.one_end:
        raise UsageError(f"{what} learns maps to the end alone, and {student.config.method.name!r} asks all")
    if of_map and not same:
        raise UsageError(f"{what} is on another path, to which its map cannot be carried: give both one interpolant")
    if teacher.method.guidance is not None:
        raise UsageError(f"{what} reads guidance as an input, and no method asks a teacher that does")
    if student.method.guidance is not None and section.guidance.scale != 1:
        raise UsageError(
            f"teacher.guidance.scale={section.guidance.scale} beside method.guidance={student.config.method.guidance}: "
            "each row draws its own scale; leave out the first"
        )
    if trained.named(section.weak) is not None and student.method.guidance is None and section.guidance.scale == 1:
        raise UsageError(f"teacher.weak={section.weak!r} guides at no scale: set teacher.guidance.scale above 1")


def guided_teacher(config: ConfigDict, method: Method, roles: Roles) -> Roles:
    """The roles with the teacher guided as config.teacher says, by a weaker one or by leaving out the label, or as the
    method asks in the condition."""
    if roles.teacher is None:
        return roles
    section = config.teacher
    given = section.guidance.scale, tuple(section.guidance.interval)
    if "weak_teacher" in roles.extras:
        return roles._replace(teacher=Autoguided(roles.teacher, roles.extras["weak_teacher"], *given))
    if section.guidance.scale == 1 and method.guidance is None:
        return roles
    return roles._replace(teacher=ClassifierFree(roles.teacher, *given))
