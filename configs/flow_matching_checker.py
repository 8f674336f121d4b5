"""Flow matching on the checkerboard.

python main.py --config=configs/flow_matching_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("flow_matching")
