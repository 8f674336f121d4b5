"""Eulerian self-distillation on the checkerboard, at a smaller rate and a larger batch than the other methods.

python main.py --config=configs/esd_checker.py --mode=train

At the others' rate of 3e-3 it diverges, and at 1e-3 with batches of 256 too (from step 50,000 on, seed 0).
"""

from configs import base


def get_config():
    config = base.checker("esd")
    config.optimizer.update(learning_rate=1e-3, clip_norm=1.0)
    config.train.update(steps=20_000, batch_size=1024, log_every=500, checkpoint_every=5_000)
    return config
