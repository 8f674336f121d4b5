"""Lagrangian self-distillation on scikit-learn's digits.

python main.py --config=configs/lsd_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.digits("lsd"), fd_digits=(3.07, 1.79, 1.21, 1.01, 0.983))
