"""Lagrangian map distillation (arXiv:2406.07507) on the checkerboard.

python main.py --config=configs/flow_matching_checker.py --mode=train
python main.py --config=configs/lmd_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.distilled(base.checker("flow_map_distillation"), "flow_matching_checker")
