"""Progressive self-distillation at the midpoint on the checkerboard.

python main.py --config=configs/psd_m_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.expect(base.checker("psd", middle="midpoint"), kl_aligned=(0.408, 0.286, 0.199, 0.0768, 0.0645))
