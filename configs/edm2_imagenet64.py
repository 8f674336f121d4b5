"""EDM2-S (arXiv:2312.02696) on ImageNet at 64x64: 2^30 images at a learning rate of 0.01. EDM's weight stands for the
learned one, and one fixed average for those fitted after training, so its decay is unverified; the rest is not
checked against the released code. Published: FID 1.58 at 63 evaluations. Trained here by nobody yet.

python main.py --config=configs/edm2_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class.
"""

from configs import base


def get_config():
    denoising = {"weighting": "edm", "law": ("log_normal", -0.8, 1.6)}
    config = base.denoiser(base.edm2_imagenet64, "variance_exploding", "edm", "edm_heun(denoise=True)", **denoising)
    config.sample.steps = (32,)  # 63 evaluations
    return config
