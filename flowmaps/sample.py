"""`--mode=sample`: pictures of a trained run over step counts, from the same noise and labels, and samples to keep."""

import io
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict

from flowmaps import autoencoders, coding, data, evaluate, experiment, generate, pairs, plots, solvers
from flowmaps.errors import MissingError, UsageError
from flowmaps.experiment import Experiment
from flowmaps.files import write_whole
from flowmaps.generate import Edit, Generated
from flowmaps.solvers import latents
from flowmaps.types import Array, Cond, Params

Show = Callable[[Float[np.ndarray, "n _ _ _"]], UInt8[np.ndarray, "n _ _ _"]]
"""Examples -> the images that they are, as bytes."""
LINES = 400
"""Samples whose way is drawn."""
ACROSS = 1280
"""Pixels that the images of a row take, about."""
MOST_COLUMNS = 20
POOL = 2_000
"""Images among which those of given labels are looked for."""
COLOURS = 3
PICTURES = ("digits", "image")
"""Kinds of data that are images as they are."""
ARC = 8
"""Images along an interpolation, both ends among them."""


def run(config: ConfigDict, workdir: str | Path) -> Path:
    """Draws config.sample.num_samples samples of the last checkpoint, at config.sample.steps, with the first of the
    averages that config.eval.ema names; from the image config.sample.start, where there is one.

    In workdir/samples: grid.png, a row or panel for each step count; of planes also trajectories.png; where
    config.sample.interpolations asks for them interpolations.png; and samples.npz of the largest step count, with
    `arr_0` uint8 [N, H, W, C] for images and float32 for planes and latents, and `arr_1` int64 labels where there are
    classes. Latents with config.data.autoencoder are decoded, and are images then. Returns that folder.

    With config.sample.pairs it makes pairs for students and returns their folder, see flowmaps/pairs.py.

    Raises UsageError for an unknown sampler or a size below one, MissingError where there is no checkpoint or image.
    """
    directory = Path(workdir) / "samples"
    exp = experiment.build(config, training=False)
    program = check(exp)
    if config.sample.pairs:
        return pairs.run(exp, Path(workdir))
    params = parameters(exp, Path(workdir))
    made = {steps: draw(exp, program, params[steps], steps) for steps in sorted(params)}
    plane, show = exp.dataset.kind == "plane", shown(exp)
    pictures = draw_plane(exp, params, made) if plane else draw_images(exp, program, params, made, show)
    kept = numbers(exp, made[max(made)].x, show)
    if jax.process_index() == 0:
        for stale in directory.glob("*.png"):
            stale.unlink()
        for name, picture in pictures.items():
            write_whole(directory / name, picture)
        save(directory / "samples.npz", kept, made[max(made)].labels)
        logging.info("samples of %s steps by %s: %s", ", ".join(map(str, made)), program.sampler, directory)
    return directory


def parameters(exp: Experiment, workdir: Path) -> dict[int, Params]:
    """Number of steps of config.sample -> the first average of the student that generates with it. Raises MissingError
    where none is trained yet."""
    found = {}
    for student in evaluate.students(exp, workdir, exp.config.sample.steps):
        found |= dict.fromkeys(student.step_counts, next(iter(student.averages.values())))
    if not found:
        raise MissingError(f"{workdir} has trained none of the students of sample.steps={exp.config.sample.steps} yet")
    return found


def check(exp: Experiment) -> generate.Program:
    """The program that samples. Raises UsageError for any field of config.sample that cannot be, MissingError where the
    image to edit is not there."""
    chosen = exp.config.sample
    if chosen.num_samples < 1 or not chosen.steps:
        raise UsageError(
            f"sample.num_samples={chosen.num_samples} and sample.steps={chosen.steps}: at least one of each"
        )
    edit = edited(exp)
    for steps in chosen.steps:
        generate.time_grid(exp, steps, None if edit is None else edit.time)
        evaluate.check_learned(exp, "sample", steps)
    if chosen.interpolations:
        same_class_pairs(exp)
    if exp.dataset.coding is not None:
        check_autoencoder(exp)
    return generate.program(exp, batch_size=min(chosen.num_samples, exp.config.eval.batch_size), edit=edit)


def edited(exp: Experiment) -> Edit | None:
    """The image config.sample.start at its time; None where there is none. Raises UsageError where it cannot be."""
    start = exp.config.sample.start
    if start is None:
        return None
    if exp.dataset.kind not in PICTURES:
        raise UsageError(f"sample.start={start!r} is an image, and these data are {exp.dataset.kind} data")
    if exp.method.model is not None:
        raise UsageError("sample.start needs states without a latent, which this method's network has not seen")
    return Edit(data.read_image(start, exp.dataset.shape), exp.config.sample.start_time)


def check_autoencoder(exp: Experiment) -> None:
    """Raises UsageError where data.autoencoder is one of other latents, MissingError where it has no file."""
    path, channels = exp.dataset.coding.autoencoder, exp.dataset.shape[-1]
    own = coding.read(exp.dataset.coding).module.latent_channels
    if own != channels:
        raise UsageError(f"data.autoencoder={path!r} has latents of {own} channels, and these data have {channels}")


def draw(exp: Experiment, program: generate.Program, params: Params, steps: int) -> Generated:
    """The samples of config.sample after `steps` steps."""
    chosen = exp.config.sample
    return generate.samples(exp, program, params, steps=steps, seed=chosen.seed, num_samples=chosen.num_samples)


def draw_plane(exp: Experiment, params: Mapping[int, Params], made: Mapping[int, Generated]) -> dict[str, bytes]:
    """Densities beside the exact one, and the ways from noise to samples."""
    chosen = exp.config.sample
    points = {plots.caption(steps): samples.x for steps, samples in made.items()}
    lines = min(LINES, chosen.num_samples)
    paths = generate.trajectories(exp, params, seed=chosen.seed, num_samples=lines)
    return {
        "grid.png": plots.density(points, held_out(exp, chosen.num_samples), exp.dataset.log_density),
        "trajectories.png": plots.trajectories(dict(paths)),
    }


def draw_images(
    exp: Experiment,
    program: generate.Program,
    params: Mapping[int, Params],
    made: Mapping[int, Generated],
    show: Show,
) -> dict[str, bytes]:
    """The first images at each step count, and below them real ones of the same labels, or the edited one."""
    across = columns(exp)
    rows = {plots.caption(steps): samples.x[:across] for steps, samples in made.items()}
    if program.edit is None:
        rows["real"] = real_like(exp, made[max(made)].labels, across)
    else:
        rows["given"] = program.edit.example[None]
    pictures = {"grid.png": rows}
    if exp.config.sample.interpolations:
        pictures["interpolations.png"] = interpolations(exp, params[max(made)])
    return {file: plots.image_grid({name: show(x) for name, x in rows.items()}) for file, rows in pictures.items()}


def held_out(exp: Experiment, count: int) -> Float[np.ndarray, "_ *d"]:
    """So many examples that were not trained on, or as many as there are; of data without such the training ones."""
    source = exp.dataset.test or exp.dataset.train
    return source.batch(np.arange(min(len(source), count)))["x1"]


def columns(exp: Experiment) -> int:
    """The number of images in a row of a picture."""
    coded = exp.dataset.coding
    width = exp.dataset.shape[1] * (1 if coded is None else autoencoders.describe(coded.autoencoder).factor)
    return int(np.clip(ACROSS // width, 1, min(MOST_COLUMNS, exp.config.sample.num_samples)))


def shown(exp: Experiment) -> Show:
    """How the experiment's examples become visible: latents that have an autoencoder are decoded by it."""
    coded = exp.dataset.coding
    if coded is None:
        return visible
    decode = coding.of_dataset(coded, exp.mesh)
    return lambda x: np.concatenate([data.to_uint8(images) for images in decode(x)])


def visible(x: Float[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n h w colours"]:
    """Images as bytes; of latents, which have more channels and unit variance, the first ones, narrowed."""
    channels = x.shape[-1]
    if channels in (1, COLOURS):
        return data.to_uint8(x)
    return data.to_uint8(x[..., : COLOURS if channels > COLOURS else 1] / 3)


def same_class_pairs(exp: Experiment) -> Int[np.ndarray, "n 2"]:
    """The first held-out images, by index, of which two and two have one class. Raises UsageError for too few."""
    chosen, source = exp.config.sample.interpolations, exp.dataset.test or exp.dataset.train
    if exp.dataset.kind not in PICTURES or exp.dataset.source is not None:
        raise UsageError("sample.interpolations needs images and a Gaussian source")
    labels = source.batch(np.arange(min(len(source), POOL)))["label"]
    found = np.array(list(islice(same_label(labels), chosen)))
    if len(found) < chosen:
        raise UsageError(f"sample.interpolations={chosen}: there are {len(found)} held-out pairs of one class")
    return found


def interpolations(exp: Experiment, params: Params) -> dict[str, Float[np.ndarray, "n h w c"]]:
    """For each pair of held-out images of one class, what their latents and those on the arc between them decode to;
    the real ones at both ends. Raises UsageError where the ODE is too steep for the solver's tolerance."""
    source, path = exp.dataset.test or exp.dataset.train, exp.interpolant
    chosen = same_class_pairs(exp)
    batches = [source.batch(chosen[:, i]) for i in (0, 1)]
    images = [jnp.asarray(batch["x1"]) for batch in batches]
    cond = {"label": jnp.asarray(batches[0]["label"])} if exp.dataset.num_classes else {}

    @jax.jit
    def between(one: Array, other: Array, cond: Cond) -> tuple[Array, Array]:
        velocity = experiment.student(exp, params)
        ends = [latents.encode(velocity, path, x, cond) for x in (one, other)]
        arc = [latents.slerp(ends[0].x, ends[1].x, jnp.full(len(one), share)) for share in np.linspace(0, 1, ARC)]
        repeated = {name: jnp.tile(c, ARC) for name, c in cond.items()}
        decoded = latents.decode(velocity, path, jnp.concatenate(arc), repeated)
        fewest = jnp.minimum(decoded.nfe, jnp.minimum(ends[0].nfe, ends[1].nfe))
        return decoded.x.reshape(ARC, *one.shape), fewest

    decoded, fewest = between(*images, cond)
    if fewest == solvers.GAVE_UP:
        raise UsageError("sample.interpolations: the ODE is too steep for the solver's tolerance")
    rows = np.concatenate([images[0][None], decoded, images[1][None]]).swapaxes(0, 1)
    return {f"pair {number}": row for number, row in enumerate(rows, start=1)}


def same_label(labels: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of places with one label, each place in one of them."""
    waiting: dict[int, int] = {}
    for place, label in enumerate(labels.tolist()):
        if label in waiting:
            yield waiting.pop(label), place
        else:
            waiting[label] = place


def real_like(exp: Experiment, labels: np.ndarray | None, count: int) -> Float[np.ndarray, "_ h w c"]:
    """Training images in a fixed random order: the first ones, or where there are labels the first of each in turn; a
    label that is not among the first POOL has a grey image."""
    source = exp.dataset.train
    pool = source.batch(np.random.default_rng(0).permutation(len(source))[: POOL if labels is not None else count])
    if labels is None:
        return pool["x1"]
    left = {label: list(pool["x1"][pool["label"] == label]) for label in set(labels[:count].tolist())}
    grey = np.zeros(exp.dataset.shape, np.float32)
    return np.stack([left[label].pop(0) if left[label] else grey for label in labels[:count].tolist()])


def numbers(exp: Experiment, x: Float[np.ndarray, "n *d"], show: Show) -> np.ndarray:
    """Samples as they are kept: images as bytes, points and latents that stay such as they are."""
    if exp.dataset.coding is not None:
        return show(x)
    return x.astype(np.float32) if exp.dataset.kind in ("plane", "latent") else data.to_uint8(x)


def save(path: Path, x: np.ndarray, labels: Int[np.ndarray, " n"] | None) -> None:
    """Writes samples as evaluators of others read them (the format of ADM's)."""
    named = {} if labels is None else {"arr_1": labels.astype(np.int64)}
    file = io.BytesIO()
    np.savez(file, arr_0=x, **named)
    write_whole(path, file.getvalue())
