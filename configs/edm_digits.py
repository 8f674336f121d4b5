"""EDM (arXiv:2206.00364) on scikit-learn's digits: preconditioning, log-normal noise levels, Heun's method.

python main.py --config=configs/edm_digits.py --mode=train

`:likelihood` trains on dequantised digits and measures bits a pixel of held-out ones.
`:guided` learns without labels too, as a guided teacher must.
"""

from configs import base


def get_config(variant=""):
    law = ("log_normal", -1.2, 1.2)
    solver = "edm_heun(denoise=True)"
    config = base.denoiser(base.digits, "variance_exploding", "edm", solver, weighting="edm", law=law)
    likelihood = {"data.dequantise": True, "eval.metrics": ("fd_digits", "nll")}
    return base.vary(config, variant, likelihood=likelihood, guided={"method.label_dropout": 0.1})
