"""MeanFlow (arXiv:2505.13447) on CelebA at 64x64, without labels: DiT-B/4 and the paper's options for ImageNet; no
paper's own run. Trained here by nobody yet.

python main.py --config=configs/mean_flow_celeba.py --mode=train --config.data.dir=/my/tfds

The images cannot be fetched by a program: without them the command says which files to fetch and how to go on.
`:one_gpu` is the same run on one device, each batch in 4 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.celeba("mean_flow")
    config.optimizer.b2 = 0.95
    return base.one_gpu(config, variant, parts=4)
