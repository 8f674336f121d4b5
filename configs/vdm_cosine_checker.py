"""Cosine schedule with v-prediction (arXiv:2202.00512) on the checkerboard.

python main.py --config=configs/vdm_cosine_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.denoiser(base.checker, "trigonometric", "v", "dpm_solver_pp", weighting="snr_plus_one")
