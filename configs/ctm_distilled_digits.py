"""Consistency trajectory model (arXiv:2310.02279), of a teacher on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/ctm_distilled_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("ctm", leg="heun", intervals=17, most_steps=17, adaptive=True)
    return base.distilled(base.on_levels(config, "variance_exploding", "edm"), "edm_digits")
