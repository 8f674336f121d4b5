"""Improved distribution matching distillation (arXiv:2405.14867) on the checkerboard.

python main.py --config=configs/edm_checker.py:residual --mode=train
python main.py --config=configs/dmd2_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.matching(base.checker, "dmd2", "edm_checker_residual", **base.PLANE_GAPS)
