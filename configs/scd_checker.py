"""Continuous-time consistency distillation, sCD (arXiv:2410.11081) on the checkerboard.

python main.py --config=configs/edm_checker.py --mode=train
python main.py --config=configs/scd_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("continuous_consistency", velocity="teacher", warmup_steps=20000)
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    return base.distilled(config, "edm_checker", start=False)  # whose path is another: its velocity is carried over
