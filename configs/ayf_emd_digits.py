"""Align Your Flow's Eulerian objective (arXiv:2506.14603), without a teacher on scikit-learn's digits.

python main.py --config=configs/ayf_emd_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("align_your_flow", warmup_steps=2000)
