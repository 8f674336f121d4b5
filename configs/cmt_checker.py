"""Consistency mid-training (arXiv:2509.24526) on the checkerboard, before a consistency model.

python main.py --config=configs/edm_checker.py --mode=train
python main.py --config=configs/edm_checker.py --mode=sample \
    --config.sample.pairs=200000 --config.sample.points=16 --config.sample.steps="(32,)"
python main.py --config=configs/cmt_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.on_levels(base.checker("consistency_mid_training"), "variance_exploding", "edm")
    return base.paired(config, "edm_checker", "trajectories")
