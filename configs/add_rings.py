"""Adversarial diffusion distillation (arXiv:2311.17042) on eight Gaussians on a ring: its critic sees the samples.

python main.py --config=configs/edm_rings.py:residual --mode=train
python main.py --config=configs/add_rings.py --mode=train

With the paper's weight of the teacher, 2.5, which contracts to the mean, fewer modes are left.
"""

from configs import base


def get_config():
    options = {"sees": "samples", "penalties": (0.1, 0.0), "distillation": 0.1}
    config = base.matching(base.rings, "adversarial_distillation", "edm_rings_residual", "critic", **options)
    config.eval.steps = config.sample.steps = (1, 2, 4)
    return base.expect(config, modes=(4, 5, 5), in_modes=(0.974, 0.963, 0.976), sliced_w2=(0.552, 0.362, 0.38))
