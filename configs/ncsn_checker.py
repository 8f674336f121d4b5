"""NCSN (arXiv:1907.05600) on the checkerboard: ten noise levels, annealed Langevin dynamics.

python main.py --config=configs/ncsn_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("score_matching", law=("ladder", 10))
    config.interpolant = base.part(base.interpolants, "geometric", sigma_min=0.03, sigma_max=3.0)
    config.coupling.scale = 1.0
    config.prediction = base.part(base.predictions, "score", data_std=base.DATA_STD["checker"])
    config.network.scale = 1.0
    config.sample.solver = "annealed_langevin(step_size=2e-4, denoise=True)"
    config.sample.steps = config.eval.steps = (9,)
    config.eval.num_samples = 50_000  # of 1,001 evaluations each
    return config
