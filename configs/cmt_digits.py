"""Consistency mid-training (arXiv:2509.24526) on scikit-learn's digits, before a consistency model.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/edm_digits.py --mode=sample \
    --config.sample.pairs=50000 --config.sample.points=16 --config.sample.steps="(32,)"
python main.py --config=configs/cmt_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.on_levels(base.digits("consistency_mid_training"), "variance_exploding", "edm")
    return base.paired(config, "edm_digits", "trajectories")
