"""Consistency trajectory model (arXiv:2310.02279), without a teacher on the checkerboard.

python main.py --config=configs/ctm_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.on_levels(base.checker("ctm"), "variance_exploding", "edm")
