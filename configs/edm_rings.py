"""EDM (arXiv:2206.00364) on eight Gaussians on a ring: preconditioning, log-normal noise levels, Heun's method.

python main.py --config=configs/edm_rings.py --mode=train
"""

from configs import base


def get_config(variant: str = ""):
    config = base.denoiser(
        base.rings,
        "variance_exploding",
        "edm",
        "edm_heun(denoise=True)",
        weighting="edm",
        law=("log_normal", -1.2, 1.2),
    )
    # Where no data lie a plain perceptron is steep; a teacher of generators, which get there, is better a residual one.
    return base.vary(config, variant, residual={"network.residual": True})
