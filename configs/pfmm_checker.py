"""Progressive flow map matching (arXiv:2406.07507) on the checkerboard: of a map that another run has learned.

python main.py --config=configs/lmd_checker.py --mode=train
python main.py --config=configs/pfmm_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.distilled(base.checker("flow_map_distillation", objective="progressive"), "lmd_checker")
