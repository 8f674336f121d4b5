"""Truncated consistency model (arXiv:2410.14895) on scikit-learn's digits: the second stage of ECT.

python main.py --config=configs/ect_digits.py --mode=train
python main.py --config=configs/tcm_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("truncated_consistency")
    config = base.on_levels(config, "variance_exploding", "edm", sigma_min=0.0)
    config.optimizer.learning_rate = 1e-4  # at the first stage's 1e-3 it diverges
    return base.distilled(config, "ect_digits")
