"""Score-based model of the VE SDE (arXiv:2011.13456) on the checkerboard, by score prediction.

python main.py --config=configs/score_ve_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.denoiser(base.checker, "geometric", "score", "edm_heun(denoise=True)")
    config.interpolant.sigma_max = 20.0
    return config
