"""Improved distribution matching distillation (arXiv:2405.14867) on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/dmd2_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.digits, "dmd2", "edm_digits")
    config.optimizer.learning_rate = 3e-4
    return base.expect(config, fd_digits=(1.79,), coverage=(0.933,))
