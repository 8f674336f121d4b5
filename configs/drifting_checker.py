"""Drifting (arXiv:2602.04770) on the checkerboard, without a teacher.

python main.py --config=configs/drifting_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.one_step(base.checker("drifting"))
