"""Score distillation by DreamFusion's gradient (arXiv:2209.14988) on scikit-learn's digits.

It goes to modes and not to the law: shown, not recommended.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/sds_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.digits, "score_distillation", "edm_digits", objective="sds", adversary="")
    return base.expect(config, fd_digits=(12.2,), coverage=(0.105,))
