"""Progressive flow map matching (arXiv:2406.07507) on scikit-learn's digits: of a map that another run has learned.

python main.py --config=configs/lmd_digits.py --mode=train
python main.py --config=configs/pfmm_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.distilled(base.digits("flow_map_distillation", objective="progressive"), "lmd_digits")
