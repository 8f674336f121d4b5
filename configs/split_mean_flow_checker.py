"""SplitMeanFlow (arXiv:2507.16884) on the checkerboard: the semigroup cut at uniform points, half of the rows.

python main.py --config=configs/split_mean_flow_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("psd", middle="uniform", diagonal_fraction=0.5, weights=(0.5, 0.5))
