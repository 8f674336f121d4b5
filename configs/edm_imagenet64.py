"""EDM (arXiv:2206.00364, table 7) on ImageNet at 64x64: ADM's U-Net, 2,500 M images, an average of half-life 50 M.
Published: FID 2.23 at 79 evaluations, in float16, which is float32 here. Trained here by nobody yet.

python main.py --config=configs/edm_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class.
"""

from configs import base


def get_config():
    config = base.denoiser(base.imagenet64, "variance_exploding", "edm", "edm_heun(denoise=True)", weighting="edm")
    config.method.law = ("log_normal", -1.2, 1.2)
    config.network.dropout = 0.1
    config.optimizer.update(learning_rate=1e-4, warmup_steps=2_441, clip_norm=0.0)  # 10 M images
    config.train.update(steps=610_352, batch_size=4096, ema=(0.5 ** (4096 / 50_000_000),))
    config.sample.steps = (20, 40)  # 39 and 79 evaluations
    return config
