"""NCSN (arXiv:1907.05600) on scikit-learn's digits: ten noise levels, annealed Langevin dynamics.

python main.py --config=configs/ncsn_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("score_matching", law=("ladder", 10))
    config.interpolant = base.part(base.interpolants, "geometric", sigma_min=0.03, sigma_max=5.0)
    config.coupling.scale = 1.0
    config.prediction = base.part(base.predictions, "score", data_std=base.DATA_STD["digits"])
    config.network.scale = 1.0
    config.sample.solver = "annealed_langevin(step_size=2e-4, denoise=True)"
    config.sample.steps = config.eval.steps = (9,)
    return config
