"""Progressive self-distillation at the midpoint on the checkerboard.

python main.py --config=configs/psd_m_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("psd", middle="midpoint")
