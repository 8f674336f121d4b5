"""Drifting (arXiv:2602.04770) on eight Gaussians on a ring, without a teacher.

python main.py --config=configs/drifting_rings.py --mode=train

One and a half minutes on one core.
"""

from configs import base


def get_config():
    config = base.one_step(base.rings("drifting"))
    config.train.steps = 8_000
    return base.expect(config, modes=(8,), in_modes=(0.942,), w2=(0.096,), sliced_w2=(0.0241,))
