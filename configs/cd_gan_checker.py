"""Consistency distillation (arXiv:2303.01469) with an adversarial term on the checkerboard.

python main.py --config=configs/edm_checker.py --mode=train
python main.py --config=configs/cd_gan_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("consistency", leg="heun", schedule="doubling", intervals=(17, 17), initial_decay=0.95)
    config = base.distilled(base.on_levels(config, "variance_exploding", "edm"), "edm_checker")
    config = base.adversarial(config, weight=0.1, adaptive=True, sees="samples", penalties=(0.1, 0.0))
    return base.expect(
        config, kl_aligned=(0.137, 0.14, 0.108, 0.119, 0.13), sliced_w2=(0.0256, 0.0272, 0.0204, 0.0176, 0.0169)
    )
