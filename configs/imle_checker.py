"""Implicit maximum likelihood (arXiv:1809.09087) on the checkerboard, without a teacher.

python main.py --config=configs/imle_checker.py --mode=train

It keeps off the edges of the squares, which the divergence does not forgive. Two minutes on one core.
"""

from configs import base


def get_config():
    config = base.one_step(base.checker("imle", draws=64))
    config.train.batch_size = 64
    config.train.steps = 8_000
    return base.expect(config, kl_aligned=(1.02,), sliced_w2=(0.0175,), modes=(8,), in_modes=(0.959,))
