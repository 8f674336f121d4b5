"""Flow matching with minibatch optimal transport (OT-CFM, arXiv:2302.00482) on the checkerboard.

python main.py --config=configs/ot_cfm_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("flow_matching")
    config.coupling = base.part(base.couplings, "optimal_transport", scale=1 / 3**0.5)
    return config
