"""Eulerian self-distillation on the checkerboard.

python main.py --config=configs/esd_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("esd")
    config.optimizer.learning_rate = 1e-3  # at the others' rate it diverges: tests/test_long.py
    return config
