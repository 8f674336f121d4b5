"""Flow matching on scikit-learn's digits.

python main.py --config=configs/flow_matching_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.digits("flow_matching"), fd_digits=(12.6, 4.84, 2.06, 1.36, 1.14))
