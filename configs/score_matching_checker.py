"""Hyvarinen's score matching (JMLR 6, 2005) with the exact trace, at the noise levels of the cosine path.

python main.py --config=configs/score_matching_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("score_matching", objective="implicit")
    config.interpolant = base.part(base.interpolants, "trigonometric")
    config.coupling.scale = 1.0
    config.sample.solver = "heun"
    return config
