"""Improved MeanFlow (arXiv:2512.02012) on scikit-learn's digits.

python main.py --config=configs/improved_mean_flow_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("improved_mean_flow", power=0.5, law=("uniform",))
