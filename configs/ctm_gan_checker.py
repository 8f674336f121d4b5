"""Consistency trajectory model (arXiv:2310.02279) with its critic, without a teacher on the checkerboard.

python main.py --config=configs/ctm_gan_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.on_levels(base.checker("ctm"), "variance_exploding", "edm")
    config = base.adversarial(config, weight=0.1, adaptive=True, sees="samples", penalties=(0.1, 0.0))
    return base.expect(
        config, kl_aligned=(0.804, 0.682, 0.639, 0.355, 0.188), sliced_w2=(0.0269, 0.0223, 0.0436, 0.0354, 0.0319)
    )
