"""The Schroedinger bridge's flow and score (SB-CFM, [SF]2M; arXiv:2307.03672, sigma 0.2) on the checkerboard.

python main.py --config=configs/sb_cfm_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("stochastic_interpolant", latent="bridge", scale=0.2)
    plan = {"regularization": 2 * 0.2**2, "scale": 1 / 3**0.5}
    config.coupling = base.part(base.couplings, "optimal_transport", **plan)
    return config
