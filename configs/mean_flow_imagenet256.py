"""MeanFlow-XL/2 (arXiv:2505.13447) on ImageNet at 256x256, as Stable Diffusion's latents: guidance of scale 2.5 is
trained in, 240 epochs. Published: FID 3.43 at 1 evaluation, 2.93 at 2. Trained here by nobody yet.

python main.py --config=configs/mean_flow_imagenet256.py --mode=train --config.data.dir=/my/latents

scripts/encode_latents.py makes the folder; --config.data.autoencoder=FILE.safetensors makes images of samples.
`:one_gpu` is the same run on one device, each batch in 8 parts.
"""

from configs import base


def get_config(variant=""):
    guidance = {"omega": 0.2, "kappa": 0.92, "interval": (0.25, 1.0), "label_dropout": 0.1, "dropped_rows": "diagonal"}
    config = base.imagenet256("mean_flow", **guidance)
    config.optimizer.b2 = 0.95
    config.train.steps = 1_200_000
    config.sample.steps = config.eval.steps = (1, 2)
    return base.one_gpu(config, variant, parts=8)
