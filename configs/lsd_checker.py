"""Lagrangian self-distillation on the checkerboard.

python main.py --config=configs/lsd_checker.py --mode=train
"""

from configs import base


def get_config(variant: str = ""):
    config = base.checker("lsd")
    # Over long runs the board's rate and clipping let a rare spike through: at seed 0 it diverged near step 122,600.
    calmer = {"optimizer.learning_rate": 2e-3, "optimizer.clip_norm": 1.0}
    base.vary(config, variant, long={"train.steps": 560_000, "train.checkpoint_every": 40_000, **calmer})
    reached = (0.0596, 0.0431, 0.0462, 0.0343, 0.0345) if variant else (0.139, 0.113, 0.0942, 0.0573, 0.0602)
    return base.expect(config, kl_aligned=reached)
