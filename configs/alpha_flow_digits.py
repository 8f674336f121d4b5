"""alpha-Flow (arXiv:2510.20771): from trajectory flow matching to MeanFlow on scikit-learn's digits.

python main.py --config=configs/alpha_flow_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("alpha_flow", power=0.5, law=("uniform",))
