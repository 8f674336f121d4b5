"""Improved MeanFlow (arXiv:2512.02012) on the checkerboard.

python main.py --config=configs/improved_mean_flow_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("improved_mean_flow", power=0.0, law=("uniform",))
