"""Distribution matching distillation (arXiv:2311.18828) on scikit-learn's digits, beside stored pairs.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/edm_digits.py --mode=sample \
    --config.sample.pairs=50000 --config.sample.steps="(32,)"
python main.py --config=configs/dmd_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.digits, "dmd", "edm_digits", every=2)
    config = base.paired(config, "edm_digits")
    return base.expect(config, fd_digits=(1.96,), coverage=(0.93,))
