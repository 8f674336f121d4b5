"""Latent consistency model (arXiv:2310.04378), without guidance, on the checkerboard, which has no labels.

python main.py --config=configs/edm_checker.py --mode=train
python main.py --config=configs/lcm_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("latent_consistency")
    return base.distilled(base.on_levels(config, "variance_exploding", "edm"), "edm_checker")
