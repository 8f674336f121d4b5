"""Consistency distillation (arXiv:2303.01469) on scikit-learn's digits, by a perceptual distance as it was published:
here on the maps of the digits' classifier.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/cd_lpips_digits.py --mode=train

An example of the distance and no recipe for digits: with the squared one fd_digits is 1.8 at 1 step. Maps of unit
vectors hardly see contrast (digits times 1.5 are at 0.003 from themselves, with noise of equal square at 0.66), and it
drifts. The metric is measured by the classifier's features too, so this run is trained towards it.
"""

from configs import base, cd_digits


def get_config():
    config = base.with_classifier(cd_digits.get_config())
    config.method.distance = "perceptual"
    return base.expect(config, fd_digits=(3.49, 4.69, 5.69, 7.49, 10.7))
