"""The Schroedinger bridge's flow (SB-CFM, arXiv:2302.00482, sigma 0.2) on two moons.

python main.py --config=configs/sb_cfm_moons.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("flow_matching", latent="bridge", sigma=0.2)
    plan = {"regularization": 2 * 0.2**2, "scale": 1 / 3**0.5}
    config.coupling = base.part(base.couplings, "optimal_transport", **plan)
    config.data = base.part(base.data, "moons")
    config.eval.metrics = ("w2", "sliced_w2", "mmd")
    return config
