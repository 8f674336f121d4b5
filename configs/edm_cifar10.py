"""EDM (arXiv:2206.00364, table 7, class-conditional) on CIFAR-10: DDPM++, 200 M images, an average of half-life 0.5 M;
without its augmentation of 0.12. Published: FID 1.79 at 35 evaluations. Trained here by nobody yet.

python main.py --config=configs/edm_cifar10.py --mode=train --config.data.dir=/my/tfds

The data set is TFDS's cifar10 in array_record files.
"""

from configs import base


def get_config():
    config = base.denoiser(base.cifar10, "variance_exploding", "edm", "edm_heun(denoise=True)", weighting="edm")
    config.method.law = ("log_normal", -1.2, 1.2)
    config.optimizer.update(learning_rate=1e-3, warmup_steps=19_531, clip_norm=0.0)  # 10 M images
    config.train.update(steps=390_625, batch_size=512, ema=(0.5 ** (512 / 500_000),))
    config.sample.steps = (8, 17)  # 17 and 35 evaluations
    return config
