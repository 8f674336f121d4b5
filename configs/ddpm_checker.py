"""DDPM (arXiv:2006.11239) on the checkerboard: a chain of 1,000 steps, noise prediction, L_simple.

python main.py --config=configs/ddpm_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.denoiser(base.checker, "discrete", "noise", "ddim", law=("multiples", 1000))
