"""Score identity distillation (arXiv:2404.04057) on the checkerboard.

python main.py --config=configs/edm_checker.py:residual --mode=train
python main.py --config=configs/sid_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.matching(
        base.checker, "score_distillation", "edm_checker_residual", **base.PLANE_GAPS, objective="sid", every=2
    )
