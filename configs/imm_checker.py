"""Inductive Moment Matching (arXiv:2503.07565) on the checkerboard.

python main.py --config=configs/imm_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("imm")
    config.sample.grid = "uniform(first=0.006)"
    return config
