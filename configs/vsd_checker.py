"""Variational score distillation, Diff-Instruct (arXiv:2305.18455), on the checkerboard.

python main.py --config=configs/edm_checker.py:residual --mode=train
python main.py --config=configs/vsd_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(
        base.checker, "score_distillation", "edm_checker_residual", **base.PLANE_GAPS, objective="vsd", every=5
    )
    return base.expect(config, kl_aligned=(0.795,), sliced_w2=(0.0198,), modes=(8,), in_modes=(0.816,))
