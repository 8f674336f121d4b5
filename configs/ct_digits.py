"""Consistency training (arXiv:2303.01469) on scikit-learn's digits.

python main.py --config=configs/ct_digits.py --mode=train
"""

from configs import base


def get_config():
    # The paper's (2, 150) leaves most levels too few of these 8,000 steps: fd_digits of 48 at one step.
    config = base.digits("consistency", intervals=(10, 40), initial_decay=0.9)
    return base.on_levels(config, "variance_exploding", "consistency")
