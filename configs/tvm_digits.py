"""Terminal Velocity Matching (arXiv:2511.19797) on scikit-learn's digits.

python main.py --config=configs/tvm_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("tvm")
