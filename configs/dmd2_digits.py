"""Improved distribution matching distillation (arXiv:2405.14867) on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/dmd2_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.matching(base.digits, "dmd2", "edm_digits")
