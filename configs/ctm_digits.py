"""Consistency trajectory model (arXiv:2310.02279), without a teacher on scikit-learn's digits.

python main.py --config=configs/ctm_digits.py --mode=train
"""

from configs import base


def get_config():
    # The paper weighs denoising by the ratio of two gradients, which is small here; of more intervals few end at t = 1.
    config = base.digits("ctm", intervals=20, weights=(1.0, 0.05))
    return base.on_levels(config, "variance_exploding", "edm")
