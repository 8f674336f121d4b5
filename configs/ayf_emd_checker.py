"""Align Your Flow's Eulerian objective (arXiv:2506.14603), without a teacher on the checkerboard.

python main.py --config=configs/ayf_emd_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("align_your_flow", warmup_steps=20000)
