"""Improved distribution matching distillation (arXiv:2405.14867) on the checkerboard.

python main.py --config=configs/edm_checker.py:residual --mode=train
python main.py --config=configs/dmd2_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.checker, "dmd2", "edm_checker_residual", **base.PLANE_GAPS)
    return base.expect(config, kl_aligned=(0.735,), sliced_w2=(0.0202,), modes=(8,), in_modes=(0.824,))
