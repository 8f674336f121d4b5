"""Shortcut model on scikit-learn's digits.

python main.py --config=configs/shortcut_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.digits("shortcut"), fd_digits=(11.2, 5.22, 2.76, 1.75, 1.29))
