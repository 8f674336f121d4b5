"""A stochastic interpolant (arXiv:2303.08797) from Gaussian noise to handwritten digits, its latent sin^2-shaped.

python main.py --config=configs/interpolant_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("stochastic_interpolant", latent="sine", scale=0.5)
