"""Consistency distillation (arXiv:2303.01469) with an adversarial term on eight Gaussians on a ring.

python main.py --config=configs/edm_rings.py --mode=train
python main.py --config=configs/cd_gan_rings.py --mode=train
"""

from configs import base


def get_config():
    config = base.rings("consistency", leg="heun", schedule="doubling", intervals=(17, 17), initial_decay=0.95)
    config = base.distilled(base.on_levels(config, "variance_exploding", "edm"), "edm_rings")
    config = base.adversarial(config, weight=0.1, adaptive=True, sees="samples", penalties=(0.1, 0.0))
    return base.expect(
        config,
        modes=(8, 8, 8, 8, 8),
        in_modes=(0.972, 0.974, 0.986, 0.989, 0.998),
        w2=(0.102, 0.12, 0.101, 0.0575, 0.0887),
        sliced_w2=(0.0281, 0.0158, 0.0279, 0.0227, 0.0333),
    )
