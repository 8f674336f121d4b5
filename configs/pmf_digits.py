"""Pixel MeanFlow (arXiv:2601.22158) on scikit-learn's digits: the network predicts data, which are compared with what
they should be on the maps of the digits' classifier too.

python main.py --config=configs/pmf_digits.py --mode=train

The classifier's features are those that fd_digits is measured by, and this run is trained towards it: judge it by
coverage (0.93 at 1 step) and nn_ratio (0.89) beside it.
"""

from configs import base


def get_config():
    config = base.digits("improved_mean_flow", power=0.5, law=("uniform",), perceptual=0.4)
    config.prediction = base.part(base.predictions, "data", data_std=base.DATA_STD["digits"], clip=0.05)
    return base.expect(base.with_classifier(config), fd_digits=(2.83, 1.29, 0.736, 0.523, 0.45))
