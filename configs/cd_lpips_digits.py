"""Consistency distillation (arXiv:2303.01469) on scikit-learn's digits, by a perceptual distance as it was published:
here on the maps of the digits' classifier.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/cd_lpips_digits.py --mode=train

The classifier's features are those that fd_digits is measured by, which this run is therefore trained towards.
"""

from configs import base, cd_digits


def get_config():
    config = base.with_classifier(cd_digits.get_config())
    config.method.distance = "perceptual"
    return config
