"""Align Your Flow's Eulerian map distillation (arXiv:2506.14603) on scikit-learn's digits.

python main.py --config=configs/flow_matching_digits.py --mode=train
python main.py --config=configs/ayf_emd_distilled_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("align_your_flow", velocity="teacher", warmup_steps=2000)
    return base.distilled(config, "flow_matching_digits")
