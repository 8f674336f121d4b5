"""Score distillation by DreamFusion's gradient (arXiv:2209.14988) on eight Gaussians on a ring.

It goes to modes and not to the law: shown, not recommended.

python main.py --config=configs/edm_rings.py:residual --mode=train
python main.py --config=configs/sds_rings.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(
        base.rings, "score_distillation", "edm_rings_residual", **base.PLANE_GAPS, objective="sds", adversary=""
    )
    return base.expect(config, modes=(0,), in_modes=(0,), w2=(0.897,), sliced_w2=(0.633,))
