"""Drifting (arXiv:2602.04770) on scikit-learn's digits, without a teacher.

python main.py --config=configs/drifting_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.one_step(base.digits("drifting"))
