"""Improved distribution matching distillation (arXiv:2405.14867) on eight Gaussians on a ring.

python main.py --config=configs/edm_rings.py:residual --mode=train
python main.py --config=configs/dmd2_rings.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.rings, "dmd2", "edm_rings_residual", **base.PLANE_GAPS)
    return base.expect(config, modes=(8,), in_modes=(0.785,), w2=(0.107,), sliced_w2=(0.044,))
