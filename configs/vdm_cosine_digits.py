"""Cosine schedule with v-prediction (arXiv:2202.00512) on scikit-learn's digits.

python main.py --config=configs/vdm_cosine_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.denoiser(base.digits, "trigonometric", "v", "dpm_solver_pp", weighting="snr_plus_one")
