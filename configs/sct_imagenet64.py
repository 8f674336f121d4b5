"""Continuous-time consistency training, sCT (arXiv:2410.11081), on ImageNet at 64x64: TrigFlow, tangents normalised and
warmed up, a learned weight; EDM2-S, whose condition has no norm of its own, from the beginning. Published, by a size of
EDM2 that is unverified: FID 2.04 at 1 step, 1.48 at 2. Trained here by nobody yet.

python main.py --config=configs/sct_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class. The published middle angle of 2 steps, 1.1, is
--config.sample.steps="(2,)" --config.sample.grid="given(times=(0, 0.3, 1))".
"""

from configs import base


def get_config():
    config = base.edm2_imagenet64("continuous_consistency", law=("log_normal", -1.0, 1.4))
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    config.optimizer.update(learning_rate=1e-3, decay_steps=2_000, warmup_steps=0, clip_norm=1.0)
    config.train.steps = 400_000
    config.sample.steps = config.eval.steps = (1, 2)
    return config
