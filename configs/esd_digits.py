"""Eulerian self-distillation on scikit-learn's digits.

python main.py --config=configs/esd_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("esd")
