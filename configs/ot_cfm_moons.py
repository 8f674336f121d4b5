"""Flow matching with minibatch optimal transport (OT-CFM, arXiv:2302.00482) on two moons.

python main.py --config=configs/ot_cfm_moons.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("flow_matching")
    config.coupling = base.part(base.couplings, "optimal_transport", scale=1 / 3**0.5)
    config.data = base.part(base.data, "moons")
    config.eval.metrics = ("w2", "sliced_w2", "mmd")
    return config
