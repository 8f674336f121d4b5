"""Implicit maximum likelihood (arXiv:1809.09087) on eight Gaussians on a ring, without a teacher.

python main.py --config=configs/imle_rings.py --mode=train

With 16 draws one in eight of the examples has none in its mode, and pulls one over from another: more draws and fewer
examples cost the same. Two minutes on one core.
"""

from configs import base


def get_config():
    config = base.one_step(base.rings("imle", draws=64))
    config.train.batch_size = 64
    config.train.steps = 10_000
    return base.expect(config, modes=(8,), in_modes=(0.938,), w2=(0.106,), sliced_w2=(0.0224,))
