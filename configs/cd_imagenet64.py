"""Consistency distillation (arXiv:2303.01469) on ImageNet at 64x64: 40 levels, Heun's step, a target's average of 0.95.
Published: FID 6.20 at 1 step, 4.70 at 2, with a perceptual distance, for which the squared one stands here. The
optimizer RAdam is unverified. Trained here by nobody yet.

python main.py --config=configs/edm_imagenet64.py --mode=train --config.data.dir=/my/images
python main.py --config=configs/cd_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class. The published middle level of 2 steps, the 22nd of 39, is
--config.sample.steps="(2,)" --config.sample.grid="given(times=(0, 0.5641, 1))". The published
distance is --config.method.distance=perceptual on features that you bring, see the README.
"""

from configs import base


def get_config():
    config = base.imagenet64("consistency", leg="heun", schedule="doubling", intervals=(39, 39), initial_decay=0.95)
    config = base.distilled(base.on_levels(config, "variance_exploding", "edm"), "edm_imagenet64")
    config.optimizer.update(name="radam", learning_rate=8e-6, clip_norm=0.0)
    config.train.update(steps=600_000, batch_size=2048, ema=(0.999943, 0.999, 0.9999))
    config.sample.steps = config.eval.steps = (1, 2)
    return config
