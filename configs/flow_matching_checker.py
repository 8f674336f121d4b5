"""Flow matching on the checkerboard.

python main.py --config=configs/flow_matching_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.checker("flow_matching"), kl_aligned=(5.79, 2.9, 1.14, 0.516, 0.086))
