"""Sliced score matching (arXiv:1905.07088) on scikit-learn's digits, at the noise levels of the cosine path.

python main.py --config=configs/score_matching_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("score_matching", objective="sliced")
    config.interpolant = base.part(base.interpolants, "trigonometric")
    config.sample.solver = "heun"
    return config
