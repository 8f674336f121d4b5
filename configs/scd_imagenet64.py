"""Continuous-time consistency distillation, sCD (arXiv:2410.11081), on ImageNet at 64x64, with the optimizer of
NVIDIA's FastGen: EDM2-S, and no guidance of the teacher. Published, by a size of EDM2 that is unverified: FID 2.44 at
1 step, 1.66 at 2. The decay of the average and b2 are unverified. Trained here by nobody yet.

python main.py --config=configs/trigflow_imagenet64.py --mode=train --config.data.dir=/my/images
python main.py --config=configs/scd_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class. The published middle angle of 2 steps, 1.1, is
--config.sample.steps="(2,)" --config.sample.grid="given(times=(0, 0.3, 1))".
"""

from configs import base


def get_config():
    options = {"velocity": "teacher", "law": ("log_normal", -1.0, 1.4), "warmup_steps": 10_000}
    config = base.edm2_imagenet64("continuous_consistency", **options)
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    config = base.distilled(config, "trigflow_imagenet64")
    config.optimizer.update(learning_rate=7e-5, schedule="constant", warmup_steps=0, clip_norm=10.0)
    config.train.update(steps=600_000, batch_size=1024)
    config.sample.steps = config.eval.steps = (1, 2)
    return config
