"""Shortcut model on the checkerboard.

python main.py --config=configs/shortcut_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("shortcut")
