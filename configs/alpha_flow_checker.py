"""alpha-Flow (arXiv:2510.20771): from trajectory flow matching to MeanFlow on the checkerboard.

python main.py --config=configs/alpha_flow_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("alpha_flow", power=0.0, law=("uniform",))
