"""Terminal Velocity Matching (arXiv:2511.19797) on the checkerboard.

python main.py --config=configs/tvm_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("tvm")
