"""The work of a function, counted in its program before it is compiled.

What is counted is the jaxpr, in which the body of a scan is as often as it runs, and from which all that no output
needs is left out. XLA's own analysis of a compiled program counts a loop's body once; but it sees what the compiler
merges, which a jaxpr does not tell.
"""

import math
from collections.abc import Callable, Sequence

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Var


def matmul_flops(function: Callable, *arguments: object) -> float:
    """The floating-point operations of the matrix products and convolutions that the outputs of function(*arguments)
    need, two for each multiplication and addition. Arguments may be shapes; nothing is compiled.

    Of a `cond` the dearest branch counts, of a `while`, whose number of rounds no program tells, one round.

    Raises ValueError for a program inside of an operation that is not known here, such as a kernel's.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return _needed(jaxpr, [True] * len(jaxpr.outvars))[0]


def _needed(jaxpr: Jaxpr, outputs: Sequence[bool]) -> tuple[float, list[bool]]:
    """Operations for the outputs that are wanted, and which inputs they need."""
    wanted = {v for v, is_wanted in zip(jaxpr.outvars, outputs, strict=True) if is_wanted and isinstance(v, Var)}
    flops = 0.0
    for equation in reversed(jaxpr.eqns):
        outs = [v in wanted for v in equation.outvars]
        if any(outs) or equation.effects:
            cost, ins = _of_equation(equation, outs)
            flops += cost
            wanted.update(v for v, needed in zip(equation.invars, ins, strict=True) if needed and isinstance(v, Var))
    return flops, [v in wanted for v in jaxpr.invars]


def _of_equation(equation: JaxprEqn, outs: list[bool]) -> tuple[float, list[bool]]:
    """As `_needed`, of one equation."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _scan(params, outs)
    every = [True] * len(equation.invars)
    if name == "cond":
        costs, needs = zip(*(_needed(branch.jaxpr, outs) for branch in params["branches"]), strict=True)
        return max(costs), [True, *map(any, zip(*needs, strict=True))]
    if name == "while":
        return _while(params, outs)
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params:
            inner = getattr(params[key], "jaxpr", params[key])
            if len(inner.invars) == len(equation.invars) and len(inner.outvars) == len(outs):
                return _needed(inner, outs)
            if _needed(inner, [True] * len(inner.outvars))[0]:
                raise ValueError(f"the products inside of {name!r} cannot be counted: leave that operation out")
    return _own(equation), every


def _scan(params: dict, outs: list[bool]) -> tuple[float, list[bool]]:
    """A carry that any round needs is needed from every earlier one."""
    jaxpr, constants, carries = params["jaxpr"].jaxpr, params["num_consts"], params["num_carry"]
    while True:
        flops, ins = _needed(jaxpr, outs)
        carried = [a or b for a, b in zip(outs[:carries], ins[constants : constants + carries], strict=True)]
        if carried == outs[:carries]:
            return flops * params["length"], ins
        outs = carried + outs[carries:]


def _while(params: dict, outs: list[bool]) -> tuple[float, list[bool]]:
    """One round: as `_scan`, and what tells whether another round follows is always needed."""
    test, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
    of_test, of_body = params["cond_nconsts"], params["body_nconsts"]
    tested, test_ins = _needed(test, [True])
    outs = [a or b for a, b in zip(outs, test_ins[of_test:], strict=True)]
    while True:
        flops, ins = _needed(body, outs)
        carried = [a or b for a, b in zip(outs, ins[of_body:], strict=True)]
        if carried == outs:
            return tested + flops, [*test_ins[:of_test], *ins[:of_body], *carried]
        outs = carried


def _own(equation: JaxprEqn) -> float:
    """Operations of a product itself; 0 for all else."""
    shapes = [v.aval.shape for v in equation.invars if hasattr(v.aval, "shape")]
    made = math.prod(equation.outvars[0].aval.shape) if hasattr(equation.outvars[0].aval, "shape") else 0
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2.0 * made * math.prod(shapes[0][axis] for axis in contracted)
    if equation.primitive.name == "conv_general_dilated":
        out_channels = equation.params["dimension_numbers"].rhs_spec[0]
        return 2.0 * made * math.prod(shapes[1]) / shapes[1][out_channels]
    return 0.0
