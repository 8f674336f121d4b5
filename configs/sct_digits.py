"""Continuous-time consistency training, sCT (arXiv:2410.11081), on TrigFlow's path on scikit-learn's digits.

python main.py --config=configs/sct_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("continuous_consistency", warmup_steps=2000)
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    return config
