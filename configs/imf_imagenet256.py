"""Improved MeanFlow, B/2 (arXiv:2512.02012), on ImageNet at 256x256, as Stable Diffusion's latents: guidance of scales
1 to 8 and its interval as inputs, 640 epochs; tokens in context, and two heads of 8 blocks. Positions are rows and
columns, where the released code counts all tokens in one line. Published: FID 3.39 at 1 evaluation (B), 1.72 (XL).
Trained here by nobody yet.

python main.py --config=configs/imf_imagenet256.py --mode=train --config.data.dir=/my/latents

scripts/encode_latents.py makes the folder; --config.data.autoencoder=FILE.safetensors makes images of samples.
`:one_gpu` is the same run on one device, each batch in 16 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.imagenet256("improved_mean_flow", guidance=(1.0, 8.0), label_dropout=0.1)
    inputs = {"start_time": False, "dtype": "bfloat16"}
    config.network = base.part(base.networks, "in_context_dit", **inputs, **base.in_context("b"))
    config.optimizer.update(b2=0.95, warmup_steps=12_500)
    config.train.update(steps=800_000, batch_size=1024)
    config.guidance.update(scale=8.0, interval=(0.35, 0.6))
    config.sample.steps = config.eval.steps = (1, 2)
    return base.one_gpu(config, variant, parts=16)
