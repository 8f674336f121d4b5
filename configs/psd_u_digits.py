"""Progressive self-distillation, uniform split on scikit-learn's digits.

python main.py --config=configs/psd_u_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.digits("psd", middle="uniform"), fd_digits=(4.22, 1.66, 1.06, 0.953, 0.964))
