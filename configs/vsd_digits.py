"""Variational score distillation, Diff-Instruct (arXiv:2305.18455), on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/vsd_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.digits, "score_distillation", "edm_digits", objective="vsd", every=5)
    config.optimizer.learning_rate = 3e-4
    return base.expect(config, fd_digits=(2.12,), coverage=(0.943,))
