"""Align Your Flow's Lagrangian map distillation (arXiv:2506.14603) on the checkerboard.

python main.py --config=configs/flow_matching_checker.py --mode=train
python main.py --config=configs/ayf_lmd_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("align_your_flow", objective="lagrangian", velocity="teacher", warmup_steps=20000)
    return base.distilled(config, "flow_matching_checker")
