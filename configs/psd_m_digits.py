"""Progressive self-distillation at the midpoint on scikit-learn's digits.

python main.py --config=configs/psd_m_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.digits("psd", middle="midpoint"), fd_digits=(3.69, 1.61, 1.04, 0.935, 0.943))
