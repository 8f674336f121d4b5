"""DDPM (arXiv:2006.11239) on scikit-learn's digits: a chain of 1,000 steps, noise prediction, L_simple; and its bound.

python main.py --config=configs/ddpm_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.denoiser(base.digits, "discrete", "noise", "ddim", law=("multiples", 1000))
    config.eval.metrics += ("bound",)
    return config
