"""Score distillation by DreamFusion's gradient (arXiv:2209.14988) on the checkerboard.

It goes to modes and not to the law: shown, not recommended.

python main.py --config=configs/edm_checker.py:residual --mode=train
python main.py --config=configs/sds_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(
        base.checker, "score_distillation", "edm_checker_residual", **base.PLANE_GAPS, objective="sds", adversary=""
    )
    return base.expect(config, kl_aligned=(5.83,), sliced_w2=(0.575,), modes=(1,), in_modes=(0.999,))
