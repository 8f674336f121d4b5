"""MeanFlow on scikit-learn's digits.

python main.py --config=configs/mean_flow_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("mean_flow", law=("uniform",))
