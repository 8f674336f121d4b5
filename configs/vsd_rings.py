"""Variational score distillation, Diff-Instruct (arXiv:2305.18455), on eight Gaussians on a ring.

python main.py --config=configs/edm_rings.py:residual --mode=train
python main.py --config=configs/vsd_rings.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(
        base.rings, "score_distillation", "edm_rings_residual", **base.PLANE_GAPS, objective="vsd", every=5
    )
    return base.expect(config, modes=(8,), in_modes=(0.765,), w2=(0.101,), sliced_w2=(0.0436,))
