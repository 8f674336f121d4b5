"""Continuous-time consistency training, sCT (arXiv:2410.11081), on ImageNet at 64x64: TrigFlow, tangents normalised and
warmed up, a learned weight, double norm; ADM's U-Net in place of EDM2's, from the beginning. Published: FID 2.04 at 1
step, 1.48 at 2 (EDM2-XXL). Trained here by nobody yet.

python main.py --config=configs/sct_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class. The published middle angle of 2 steps, 1.1, is
--config.sample.steps="(2,)" --config.sample.grid="given(times=(0, 0.3, 1))".
"""

from configs import base


def get_config():
    law = ("log_normal", -1.0, 1.4)
    config = base.imagenet64("continuous_consistency", modulation="double_norm", law=law)
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    config.optimizer.update(schedule="rsqrt", decay_steps=2_000, learning_rate=1e-3, b2=0.99)
    config.train.update(steps=400_000, batch_size=2048)
    config.sample.steps = config.eval.steps = (1, 2)
    return config
