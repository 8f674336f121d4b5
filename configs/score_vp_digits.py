"""Score-based model of the VP SDE (arXiv:2011.13456) on scikit-learn's digits, by noise prediction.

python main.py --config=configs/score_vp_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.denoiser(base.digits, "variance_preserving", "noise", "heun")
