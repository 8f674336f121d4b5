"""Continuous-time consistency training, sCT (arXiv:2410.11081), on TrigFlow's path on the checkerboard.

python main.py --config=configs/sct_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("continuous_consistency", warmup_steps=20000)
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    return config
