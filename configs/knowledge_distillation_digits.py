"""Knowledge distillation (arXiv:2101.02388) on scikit-learn's digits: one step, from stored pairs.

python main.py --config=configs/flow_matching_digits.py --mode=train
python main.py --config=configs/flow_matching_digits.py --mode=sample \
    --config.sample.pairs=50000 --config.sample.solver=heun --config.sample.steps="(32,)"
python main.py --config=configs/knowledge_distillation_digits.py --mode=train

`:trajectories` learns from eight states of each way, made with --config.sample.points=8.
"""

from configs import base


def get_config(variant=""):
    config = base.paired(base.digits("knowledge_distillation"), "flow_matching_digits")
    several = {"coupling.pairs": "runs/flow_matching_digits/trajectories", "method.points": 8}
    return base.vary(config, variant, trajectories=several)
