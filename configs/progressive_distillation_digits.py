"""Progressive distillation (arXiv:2202.00512) on scikit-learn's digits, from 64 steps to 1.

python main.py --config=configs/flow_matching_digits.py --mode=train
python main.py --config=configs/progressive_distillation_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.progressive(base.digits("progressive_distillation"), "flow_matching_digits")
