"""Score identity distillation (arXiv:2404.04057) on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/sid_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.digits, "score_distillation", "edm_digits", objective="sid", every=2)
    return base.expect(config, fd_digits=(1.68,), coverage=(0.941,))
