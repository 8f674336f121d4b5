"""Inductive Moment Matching (arXiv:2503.07565) on scikit-learn's digits.

python main.py --config=configs/imm_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("imm")
    config.sample.grid = "uniform(first=0.006)"
    return config
