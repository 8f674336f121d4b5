"""Shortcut model on the checkerboard.

python main.py --config=configs/shortcut_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.checker("shortcut"), kl_aligned=(0.351, 0.299, 0.189, 0.071, 0.0658))
