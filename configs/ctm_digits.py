"""Consistency trajectory model (arXiv:2310.02279), without a teacher on scikit-learn's digits.

python main.py --config=configs/ctm_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.on_levels(base.digits("ctm"), "variance_exploding", "edm")
