"""Pixel MeanFlow (arXiv:2601.22158) on scikit-learn's digits: the network predicts data, which are compared with what
they should be on the maps of the digits' classifier too.

python main.py --config=configs/pmf_digits.py --mode=train

The classifier's features are those that fd_digits is measured by, which this run is therefore trained towards.
"""

from configs import base


def get_config():
    config = base.digits("improved_mean_flow", power=0.5, law=("uniform",), perceptual=0.4)
    config.prediction = base.part(base.predictions, "data", data_std=base.DATA_STD["digits"], clip=0.05)
    return base.with_classifier(config)
