"""Progressive self-distillation at the midpoint on scikit-learn's digits.

python main.py --config=configs/psd_m_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("psd", middle="midpoint")
