"""Improved consistency training (arXiv:2310.14189) on scikit-learn's digits.

python main.py --config=configs/ict_digits.py --mode=train
"""

from configs import base


def get_config():
    law = ("truncated_log_normal", -1.1, 2.0)
    options = {"schedule": "doubling", "intervals": (10, 1280), "distance": "pseudo_huber", "weighting": "gap"}
    config = base.digits("consistency", law=law, **options)
    return base.on_levels(config, "variance_exploding", "consistency")
