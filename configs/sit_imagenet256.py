"""SiT-XL/2 (arXiv:2401.08740) on ImageNet at 256x256, as Stable Diffusion's latents: linear path, velocity, 7 M steps.
Published: FID 2.06 by the SDE with guidance 1.5, 2.15 by the ODE. Trained here by nobody yet.

python main.py --config=configs/sit_imagenet256.py --mode=train --config.data.dir=/my/latents

scripts/encode_latents.py makes the folder; --config.data.autoencoder=FILE.safetensors makes images of samples.
"""

from configs import base


def get_config():
    config = base.imagenet256("flow_matching", label_dropout=0.1)
    config.train.steps = 7_000_000
    config.guidance.scale = 1.5
    config.sample.solver = "euler_maruyama(diffusion='sigma',final='mean')"
    config.sample.steps = (250,)
    return config
