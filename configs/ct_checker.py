"""Consistency training (arXiv:2303.01469) on the checkerboard.

python main.py --config=configs/ct_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("consistency", intervals=(2, 150), initial_decay=0.9)
    return base.on_levels(config, "variance_exploding", "consistency")
