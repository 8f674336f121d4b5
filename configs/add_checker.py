"""Adversarial diffusion distillation (arXiv:2311.17042) on the checkerboard: its critic sees the samples.

python main.py --config=configs/edm_checker.py:residual --mode=train
python main.py --config=configs/add_checker.py --mode=train

With the paper's weight of the teacher, 2.5, which contracts to the mean, fewer modes are left.
"""

from configs import base


def get_config():
    options = {"sees": "samples", "penalties": (0.1, 0.0), "distillation": 0.1}
    config = base.matching(base.checker, "adversarial_distillation", "edm_checker_residual", "critic", **options)
    config.eval.steps = config.sample.steps = (1, 2, 4)
    return base.expect(
        config,
        kl_aligned=(3.6, 2.94, 2.5),
        sliced_w2=(0.532, 0.365, 0.384),
        modes=(3, 5, 5),
        in_modes=(0.951, 0.958, 0.944),
    )
