"""TrigFlow (arXiv:2410.11081) on ImageNet at 64x64, the teacher of sCD: ADM's U-Net with double norm in place of
EDM2's, and so EDM's optimizer (arXiv:2206.00364) and noise levels of sCT's law, both unverified here. Trained here by
nobody yet.

python main.py --config=configs/trigflow_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class.
"""

from configs import base


def get_config():
    config = base.imagenet64("diffusion", modulation="double_norm", weighting="edm", law=("log_normal", -1.0, 1.4))
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    config.network.dropout = 0.1
    config.optimizer.update(warmup_steps=2_441, clip_norm=0.0)  # 10 M images
    config.train.update(steps=610_352, batch_size=4096, ema=(0.5 ** (4096 / 50_000_000),))
    config.sample.solver = "ddim"
    return config
