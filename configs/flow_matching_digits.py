"""Flow matching on scikit-learn's digits.

python main.py --config=configs/flow_matching_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("flow_matching")
