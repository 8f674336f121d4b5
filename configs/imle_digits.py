"""Implicit maximum likelihood (arXiv:1809.09087) on scikit-learn's digits, without a teacher.

python main.py --config=configs/imle_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.one_step(base.digits("imle"))
