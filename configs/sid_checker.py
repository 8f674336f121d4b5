"""Score identity distillation (arXiv:2404.04057) on the checkerboard.

python main.py --config=configs/edm_checker.py:residual --mode=train
python main.py --config=configs/sid_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(
        base.checker, "score_distillation", "edm_checker_residual", **base.PLANE_GAPS, objective="sid", every=2
    )
    return base.expect(config, kl_aligned=(0.516,), sliced_w2=(0.0181,), modes=(8,), in_modes=(0.834,))
