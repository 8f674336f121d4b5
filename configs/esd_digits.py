"""Eulerian self-distillation on scikit-learn's digits, its gradient through all but the velocity carried along.

python main.py --config=configs/esd_digits.py --mode=train

With the paper's stops for images (through="slope") it diverges at this rate: fd_digits at 1 step was 94 (seed 0).
"""

from configs import base


def get_config():
    return base.expect(base.digits("esd", through="map"), fd_digits=(3.89, 2.5, 1.71, 1.32, 1.17))
