"""Variational score distillation, Diff-Instruct (arXiv:2305.18455), on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/vsd_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.matching(base.digits, "score_distillation", "edm_digits", objective="vsd", every=5)
