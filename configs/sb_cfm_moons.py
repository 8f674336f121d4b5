"""The Schroedinger bridge's flow and score (SB-CFM, [SF]2M; arXiv:2307.03672, sigma 0.2) on two moons.

python main.py --config=configs/sb_cfm_moons.py --mode=train
"""

from configs import base, sb_cfm_checker


def get_config():
    config = sb_cfm_checker.get_config()
    config.data = base.part(base.data, "moons")
    config.eval.metrics = ("w2", "sliced_w2", "mmd")
    return config
