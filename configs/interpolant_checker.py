"""A stochastic interpolant (arXiv:2303.08797) between two data sets, from two moons to the checkerboard, sampled by its
ODE and, with --config.sample.solver="euler_maruyama(diffusion='rising_falling')" and
--config.sample.grid="uniform(first=0.001)", by an SDE.

python main.py --config=configs/interpolant_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("stochastic_interpolant", latent="sine", scale=0.5)
    config.data.source = base.part(base.data, "moons")
    return config
