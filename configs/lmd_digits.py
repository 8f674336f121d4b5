"""Lagrangian map distillation (arXiv:2406.07507) on scikit-learn's digits.

python main.py --config=configs/flow_matching_digits.py --mode=train
python main.py --config=configs/lmd_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.distilled(base.digits("flow_map_distillation"), "flow_matching_digits")
