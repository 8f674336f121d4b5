"""Drifting (arXiv:2602.04770) on the checkerboard, without a teacher.

python main.py --config=configs/drifting_checker.py --mode=train

Two minutes on one core.
"""

from configs import base


def get_config():
    config = base.one_step(base.checker("drifting"))
    config.train.steps = 8_000
    return base.expect(config, kl_aligned=(0.31,), sliced_w2=(0.0132,), modes=(8,), in_modes=(0.878,))
