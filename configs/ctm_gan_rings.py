"""Consistency trajectory model (arXiv:2310.02279) with its critic, without a teacher on eight Gaussians on a ring.

python main.py --config=configs/ctm_gan_rings.py --mode=train
"""

from configs import base


def get_config():
    config = base.on_levels(base.rings("ctm"), "variance_exploding", "edm")
    config = base.adversarial(config, weight=0.1, adaptive=True, sees="samples", penalties=(0.1, 0.0))
    return base.expect(
        config,
        modes=(8, 8, 8, 8, 8),
        in_modes=(0.937, 0.926, 0.752, 0.798, 0.927),
        w2=(0.112, 0.101, 0.132, 0.111, 0.098),
        sliced_w2=(0.0389, 0.0235, 0.0584, 0.0459, 0.0272),
    )
