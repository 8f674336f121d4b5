"""Implicit maximum likelihood (arXiv:1809.09087) on the checkerboard, without a teacher.

python main.py --config=configs/imle_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.one_step(base.checker("imle"))
