"""SplitMeanFlow (arXiv:2507.16884) on scikit-learn's digits: the semigroup cut at uniform points, half of the rows.

python main.py --config=configs/split_mean_flow_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("psd", middle="uniform", diagonal_fraction=0.5, weights=(0.5, 0.5))
