"""Knowledge distillation (arXiv:2101.02388) on the checkerboard: one step, from stored pairs.

python main.py --config=configs/flow_matching_checker.py --mode=train
python main.py --config=configs/flow_matching_checker.py --mode=sample \
    --config.sample.pairs=200000 --config.sample.solver=heun --config.sample.steps="(32,)"
python main.py --config=configs/knowledge_distillation_checker.py --mode=train

`:trajectories` learns from eight states of each way, made with --config.sample.points=8.
"""

from configs import base


def get_config(variant=""):
    config = base.paired(base.checker("knowledge_distillation"), "flow_matching_checker")
    several = {"coupling.pairs": "runs/flow_matching_checker/trajectories", "method.points": 8}
    return base.vary(config, variant, trajectories=several)
