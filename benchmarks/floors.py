"""What a step of each method has to ask of its networks: the passes of the paper's formula with nothing in vain.

Passes are counted for a row, of networks of one size, whichever role has them:

    plain       evaluations
    tangents    derivatives along a direction beside an evaluation (jvp)
    back        passes back through an evaluation, to parameters and input
    curved      passes back through a tangent, to both
    to_input    passes back through an evaluation, to the input alone

With F the work of an evaluation and T that of a tangent, these cost F, T, 2 F, 2 T and T. For a transformer T is 1.1 F:
its products with weights once more, and of attention's two products, which are a tenth of all, both factors' tangents.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Rows(NamedTuple):
    """A share of a batch's rows, and the passes of each."""

    share: float
    plain: float = 0
    tangents: float = 0
    back: float = 0
    curved: float = 0
    to_input: float = 0


class Case(NamedTuple):
    """A method with options, and by player the rows of a step of it."""

    method: str
    rows: Mapping[str, tuple[Rows, ...]]
    options: Mapping[str, Any] = {}
    adversary: Mapping[str, Any] = {}
    """Of a critic beside the method, see adversaries.opposed."""


def work(rows: tuple[Rows, ...], tangent: float) -> float:
    """In evaluations F, where a tangent costs `tangent` of them."""
    return sum(r.share * (r.plain + 2 * r.back + tangent * (r.tangents + 2 * r.curved + r.to_input)) for r in rows)


def student(*rows: Rows) -> dict[str, tuple[Rows, ...]]:
    return {"student": rows}


REGRESSION = student(Rows(1, plain=1, back=1))
"""Of the network's value on what needs no network: flow matching, and all that looks like it."""


def beside_flow(share: float, **passes: float) -> dict[str, tuple[Rows, ...]]:
    """Flow matching in a share of the rows, `passes` in the others."""
    return student(Rows(share, plain=1, back=1), Rows(1 - share, **passes))


SEMI = {"plain": 1, "tangents": 1, "back": 1}
"""A value, and beside it a stopped tangent."""
FAKE = (Rows(1, plain=2, back=1),)
"""A sample, and a denoiser that learns from it."""
GUIDED = {"label_dropout": 0.1}

CASES: dict[str, Case] = {
    "flow matching": Case("flow_matching", REGRESSION),
    "diffusion": Case("diffusion", REGRESSION),
    "denoising score matching": Case("score_matching", REGRESSION),
    "sliced score matching": Case(
        "score_matching", student(Rows(1, plain=1, tangents=1, back=1, curved=1)), {"objective": "sliced"}
    ),
    "stochastic interpolant": Case("stochastic_interpolant", REGRESSION),
    "reflow": Case("reflow", REGRESSION),
    "MeanFlow": Case("mean_flow", beside_flow(0.75, **SEMI)),
    "MeanFlow, one diagonal row of 64": Case("mean_flow", beside_flow(1 / 64, **SEMI), {"diagonal_fraction": 1 / 64}),
    "MeanFlow, the model's tangent": Case(
        "mean_flow", beside_flow(0.75, plain=2, tangents=1, back=1), {"tangent": "model"}
    ),
    "MeanFlow, guided by omega": Case(
        "mean_flow",
        student(Rows(0.75, plain=2, back=1), Rows(0.25, plain=2, tangents=1, back=1)),
        {"omega": 2.0, **GUIDED},
    ),
    "MeanFlow, guided by kappa": Case(
        "mean_flow",
        student(Rows(0.75, plain=2, back=1), Rows(0.25, plain=3, tangents=1, back=1)),
        {"kappa": 0.5, **GUIDED},
    ),
    "improved MeanFlow": Case("improved_mean_flow", beside_flow(0.5, plain=2, tangents=1, back=1)),
    "improved MeanFlow, guided": Case(
        "improved_mean_flow",
        student(Rows(0.5, plain=2, back=1), Rows(0.5, plain=3, tangents=1, back=1)),
        {"guidance": (1.0, 8.0), **GUIDED},
    ),
    "alpha-Flow": Case(
        "alpha_flow", beside_flow(0.5, plain=2, back=1), {"schedule": "exponential", "between": (0.1, 0.1)}
    ),
    "LSD": Case("lsd", beside_flow(0.75, plain=2, tangents=1, back=1, curved=1)),
    "LSD, through the velocity": Case("lsd", beside_flow(0.75, plain=2, tangents=1, back=1), {"through": "velocity"}),
    "ESD": Case("esd", beside_flow(0.75, plain=2, tangents=2, back=1, curved=1)),
    "PSD": Case("psd", beside_flow(0.75, plain=3, back=1)),
    "shortcut, 1/4": Case("shortcut", beside_flow(0.75, plain=3, back=1)),
    "shortcut, 1/8": Case("shortcut", beside_flow(0.875, plain=3, back=1), {"bootstrap_fraction": 0.125}),
    "shortcut, 1/4, guided": Case(
        "shortcut",
        student(Rows(3 / 4, plain=1, back=1), Rows(1 / 32, plain=5, back=1), Rows(7 / 32, plain=3, back=1)),
        {"guidance_scale": 2.0, **GUIDED},
    ),
    "TVM": Case("tvm", student(Rows(1, plain=3, tangents=1, back=2, curved=1))),
    "FACM": Case("facm", student(Rows(1, plain=2, tangents=1, back=2))),
    "IMM": Case("imm", student(Rows(1, plain=2, back=1))),
    "consistency training": Case("consistency", student(Rows(1, plain=2, back=1))),
    "consistency distillation, Heun": Case("consistency", student(Rows(1, plain=4, back=1)), {"leg": "heun"}),
    "sCT": Case("continuous_consistency", student(Rows(1, **SEMI)), {"warmup_steps": 1}),
    "sCD": Case(
        "continuous_consistency",
        student(Rows(1, plain=2, tangents=1, back=1)),
        {"warmup_steps": 1, "velocity": "teacher"},
    ),
    "TCM": Case("truncated_consistency", student(Rows(1, plain=3, back=1))),
    "latent consistency": Case("latent_consistency", student(Rows(1, plain=3, back=1))),
    "latent consistency, Heun": Case("latent_consistency", student(Rows(1, plain=4, back=1)), {"leg": "heun"}),
    "CTM, adaptive": Case("ctm", student(Rows(1, plain=5, back=2, to_input=1)), {"adaptive": True}),
    "CTM": Case("ctm", student(Rows(1, plain=5, back=2, to_input=1))),
    "CTM, one step of Heun": Case(
        "ctm", student(Rows(1, plain=7, back=2, to_input=1)), {"leg": "heun", "most_steps": 1, "adaptive": True}
    ),
    "Align Your Flow": Case("align_your_flow", student(Rows(1, **SEMI)), {"warmup_steps": 1}),
    "Align Your Flow, LMD": Case(
        "align_your_flow",
        student(Rows(1, plain=2, tangents=1, back=1)),
        {"warmup_steps": 1, "objective": "lagrangian", "velocity": "teacher"},
    ),
    "flow map distillation, LMD": Case(
        "flow_map_distillation", student(Rows(1, plain=2, tangents=1, back=1, curved=1, to_input=1))
    ),
    "flow map distillation, EMD": Case(
        "flow_map_distillation",
        student(Rows(1, plain=2, tangents=1, back=1, curved=1)),
        {"objective": "eulerian"},
    ),
    "flow map distillation, PFMM": Case(
        "flow_map_distillation", student(Rows(1, plain=3, back=1)), {"objective": "progressive"}
    ),
    "flow map matching": Case(
        "flow_map_distillation",
        student(Rows(1, plain=2, tangents=1, back=2, curved=1)),
        {"objective": "direct"},
    ),
    "progressive distillation": Case("progressive_distillation", student(Rows(1, plain=3, back=1))),
    "knowledge distillation": Case("knowledge_distillation", REGRESSION),
    "consistency mid-training": Case("consistency_mid_training", REGRESSION, {"points": 1}),
    "SDS": Case("score_distillation", student(Rows(1, plain=2, back=1)), {"objective": "sds"}),
    "VSD": Case("score_distillation", {"fake": FAKE, **student(Rows(1, plain=3, back=1))}),
    "SiD": Case(
        "score_distillation", {"fake": FAKE, **student(Rows(1, plain=3, back=1, to_input=2))}, {"objective": "sid"}
    ),
    "DMD": Case("dmd", {"fake": FAKE, **student(Rows(1, plain=4, back=2))}),
    "DMD2": Case(
        "dmd2",
        {"fake": (Rows(1, plain=4, back=3),), **student(Rows(1, plain=4, back=1, to_input=1))},
        {"adversarial": 0.1},
    ),
    "ADD, inside of the teacher": Case(
        "adversarial_distillation",
        {"critic": (Rows(1, plain=3),), **student(Rows(1, plain=3, back=1, to_input=1))},
        {"sees": "teacher"},
    ),
    "IMLE, 16 draws": Case("imle", student(Rows(1, plain=17, back=1))),
    "drifting": Case("drifting", REGRESSION, {"group": 16}),
    "CTM with a critic": Case(
        "ctm",
        {"critic": (Rows(1, plain=1),), **student(Rows(1, plain=6, back=3, to_input=1))},
        adversary={"weight": 1.0},
    ),
    "CTM with a critic, both adaptive": Case(
        "ctm",
        {"critic": (Rows(1, plain=1),), **student(Rows(1, plain=6, back=3, to_input=1))},
        {"adaptive": True},
        adversary={"weight": 1.0, "adaptive": True},
    ),
}
