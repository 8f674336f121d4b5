"""Consistency training (arXiv:2303.01469) on scikit-learn's digits.

python main.py --config=configs/ct_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("consistency", intervals=(2, 150), initial_decay=0.9)
    return base.on_levels(config, "variance_exploding", "consistency")
