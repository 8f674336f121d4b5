"""MeanFlow on scikit-learn's digits.

python main.py --config=configs/mean_flow_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("mean_flow", law=("uniform",), diagonal_times="law", power=0.5, diagonal_fraction=0.5)
    return base.expect(config, fd_digits=(1.82, 1.19, 0.984, 1.02, 1.11))
