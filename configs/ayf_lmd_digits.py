"""Align Your Flow's Lagrangian map distillation (arXiv:2506.14603) on scikit-learn's digits.

python main.py --config=configs/flow_matching_digits.py --mode=train
python main.py --config=configs/ayf_lmd_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("align_your_flow", objective="lagrangian", velocity="teacher", warmup_steps=2000)
    return base.distilled(config, "flow_matching_digits")
