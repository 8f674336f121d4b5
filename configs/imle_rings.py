"""Implicit maximum likelihood (arXiv:1809.09087) on eight Gaussians on a ring, without a teacher.

python main.py --config=configs/imle_rings.py --mode=train
"""

from configs import base


def get_config():
    return base.one_step(base.rings("imle"))
