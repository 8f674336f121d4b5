"""Score identity distillation (arXiv:2404.04057) on eight Gaussians on a ring.

python main.py --config=configs/edm_rings.py:residual --mode=train
python main.py --config=configs/sid_rings.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(
        base.rings, "score_distillation", "edm_rings_residual", **base.PLANE_GAPS, objective="sid", every=2
    )
    return base.expect(config, modes=(8,), in_modes=(0.784,), w2=(0.117,), sliced_w2=(0.0471,))
