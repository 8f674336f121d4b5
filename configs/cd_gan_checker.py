"""Consistency distillation (arXiv:2303.01469) with an adversarial term on the checkerboard.

python main.py --config=configs/edm_checker.py --mode=train
python main.py --config=configs/cd_gan_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("consistency", leg="heun", schedule="doubling", intervals=(17, 17), initial_decay=0.95)
    config = base.distilled(base.on_levels(config, "variance_exploding", "edm"), "edm_checker")
    return base.adversarial(config, weight=0.1, adaptive=True, sees="samples", penalties=(0.1, 0.0))
