"""Progressive self-distillation, uniform split on the checkerboard.

python main.py --config=configs/psd_u_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("psd", middle="uniform")
