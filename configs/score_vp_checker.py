"""Score-based model of the VP SDE (arXiv:2011.13456) on the checkerboard, by noise prediction.

python main.py --config=configs/score_vp_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.denoiser(base.checker, "variance_preserving", "noise", "heun")
