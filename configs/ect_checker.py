"""Easy consistency training (arXiv:2406.14548) on the checkerboard.

python main.py --config=configs/ect_checker.py --mode=train

It starts as denoising, or from a diffusion model on the same path:

python main.py --config=configs/edm_checker.py --mode=train --workdir=runs/start --config.interpolant.sigma_min=0.0
python main.py --config=configs/ect_checker.py --mode=train --config.init_from=runs/start
"""

from configs import base


def get_config():
    # The squared distance: the plain norm is biased where velocities are skewed, and in few dimensions they are.
    config = base.checker("consistency", schedule="ratio", law=("log_normal", -1.1, 2.0), weighting="gap")
    return base.on_levels(config, "variance_exploding", "edm", sigma_min=0.0)
