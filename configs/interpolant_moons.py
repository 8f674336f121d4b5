"""A stochastic interpolant (arXiv:2303.08797) from Gaussian noise to two moons, sampled by its ODE and, with
--config.sample.solver="euler_maruyama(diffusion='rising_falling')" and
--config.sample.grid="uniform(first=0.001)", by an SDE.

python main.py --config=configs/interpolant_moons.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("stochastic_interpolant", latent="sine", scale=0.5)
    config.data = base.part(base.data, "moons")
    config.eval.metrics = ("w2", "sliced_w2", "mmd")
    return config
