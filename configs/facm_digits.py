"""Flow-anchored consistency model (arXiv:2507.03738), without a teacher on scikit-learn's digits.

python main.py --config=configs/facm_digits.py --mode=train

`:two_clocks` asks a network of one time for the anchor at 2 - s, the paper's expanded interval.
"""

from configs import base


def get_config(variant=""):
    config = base.digits("facm", cosine=0.0)  # of one channel an angle says nothing
    return base.vary(config, variant, two_clocks={"prediction.name": "two_clocks"})
