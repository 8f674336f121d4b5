"""Drifting (arXiv:2602.04770) on eight Gaussians on a ring, without a teacher.

python main.py --config=configs/drifting_rings.py --mode=train
"""

from configs import base


def get_config():
    return base.one_step(base.rings("drifting"))
