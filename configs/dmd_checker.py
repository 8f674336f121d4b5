"""Distribution matching distillation (arXiv:2311.18828) on the checkerboard, beside stored pairs.

python main.py --config=configs/edm_checker.py:residual --mode=train
python main.py --config=configs/edm_checker.py:residual --mode=sample \
    --config.sample.pairs=200000 --config.sample.steps="(32,)"
python main.py --config=configs/dmd_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.checker, "dmd", "edm_checker_residual", **base.PLANE_GAPS, every=2)
    config = base.paired(config, "edm_checker_residual")
    return base.expect(config, kl_aligned=(0.486,), sliced_w2=(0.0129,), modes=(8,), in_modes=(0.862,))
