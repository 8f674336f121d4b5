"""Consistency trajectory model (arXiv:2310.02279) with its critic, without a teacher on eight Gaussians on a ring.

python main.py --config=configs/ctm_gan_rings.py --mode=train
"""

from configs import base


def get_config():
    config = base.on_levels(base.rings("ctm"), "variance_exploding", "edm")
    return base.adversarial(config, weight=0.1, adaptive=True, sees="samples", penalties=(0.1, 0.0))
