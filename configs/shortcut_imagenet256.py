"""Shortcut model, XL/2 (arXiv:2410.12557), on ImageNet at 256x256, as Stable Diffusion's latents: the released code's
options, guidance 1.5 trained in. Published: FID 10.6 at 1 step, 7.8 at 4, 3.8 at 128. Trained here by nobody yet.

python main.py --config=configs/shortcut_imagenet256.py --mode=train --config.data.dir=/my/latents

scripts/encode_latents.py makes the folder; --config.data.autoencoder=FILE.safetensors makes images of samples.
`:one_gpu` is the same run on one device, each batch in 8 parts.
"""

from configs import base


def get_config(variant=""):
    released = {"bootstrap_fraction": 0.125, "smallest": "released", "flow_times": "grid", "clip": 4.0}
    config = base.imagenet256("shortcut", guidance_scale=1.5, label_dropout=0.1, **released)
    config.optimizer.weight_decay = 0.1
    config.train.steps = 810_000
    config.sample.steps = config.eval.steps = (1, 4, 128)
    return base.one_gpu(config, variant, parts=8)
