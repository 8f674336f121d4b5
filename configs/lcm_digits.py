"""Latent consistency model (arXiv:2310.04378) on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/lcm_digits.py --mode=train

`:guided` distils, of configs/edm_digits.py:guided, scales 1 to 3, which --config.guidance.scale then asks for.
"""

from configs import base


def get_config(variant=""):
    teacher = {"teacher.workdir": "runs/edm_digits_guided", "init_from": "runs/edm_digits_guided"}
    config = base.on_levels(base.digits("latent_consistency"), "variance_exploding", "edm")
    guided = {"method.guidance": (1.0, 3.0), **teacher}
    return base.vary(base.distilled(config, "edm_digits"), variant, guided=guided)
