"""Eulerian self-distillation on scikit-learn's digits.

python main.py --config=configs/esd_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("esd")
    config.optimizer.learning_rate = 1e-3  # at the others' rate it diverges: tests/test_long.py
    return config
