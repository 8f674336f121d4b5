"""Reflow (arXiv:2209.03003) on the checkerboard: the second rectified flow, from the first one's pairs.

python main.py --config=configs/flow_matching_checker.py --mode=train
python main.py --config=configs/flow_matching_checker.py --mode=sample \
    --config.sample.pairs=200000 --config.sample.solver=heun --config.sample.steps="(32,)"
python main.py --config=configs/reflow_checker.py --mode=train

`:third` goes on from this run's pairs, made alike; `:distilled` fits one Euler step to them; `:mixed` has a quarter of
real data.
"""

from configs import base


def get_config(variant=""):
    config = base.paired(base.checker("reflow"), "flow_matching_checker")
    next_round = {"coupling.pairs": "runs/reflow_checker/pairs", "init_from": "runs/reflow_checker"}
    distilled = {**next_round, "method.law": ("multiples", 1)}
    mixed = {"coupling.real": True, "method.real_share": 0.25}
    return base.vary(config, variant, third=next_round, distilled=distilled, mixed=mixed)
