"""Lagrangian self-distillation on the checkerboard.

python main.py --config=configs/lsd_checker.py --mode=train
"""

from configs import base


def get_config(variant: str = ""):
    config = base.checker("lsd")
    return base.vary(config, variant, long={"train.steps": 560_000, "train.checkpoint_every": 40_000})
