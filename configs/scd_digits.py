"""Continuous-time consistency distillation, sCD (arXiv:2410.11081) on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/scd_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("continuous_consistency", velocity="teacher", warmup_steps=2000)
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    return base.distilled(config, "edm_digits", start=False)  # whose path is another: its velocity is carried over
