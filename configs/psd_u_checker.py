"""Progressive self-distillation, uniform split on the checkerboard.

python main.py --config=configs/psd_u_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.checker("psd", middle="uniform"), kl_aligned=(0.357, 0.299, 0.255, 0.0721, 0.0615))
