"""Progressive self-distillation, uniform split on scikit-learn's digits.

python main.py --config=configs/psd_u_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("psd", middle="uniform")
