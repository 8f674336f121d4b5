"""Progressive distillation (arXiv:2202.00512) on the checkerboard, from 64 steps to 1.

python main.py --config=configs/flow_matching_checker.py --mode=train
python main.py --config=configs/progressive_distillation_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.progressive(base.checker("progressive_distillation"), "flow_matching_checker")
