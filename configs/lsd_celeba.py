"""Lagrangian self-distillation (arXiv:2505.18825) on CelebA at 64x64, without labels: EDM2's U-Net, a learned weight.
Published, each the best of many checkpoints, on features of another protocol: FID 12.22 5.74 3.18 2.18 1.96 at 1, 2,
4, 8, 16 steps. Trained here by nobody yet.

python main.py --config=configs/lsd_celeba.py --mode=train --config.data.dir=/my/tfds

The images cannot be fetched by a program: without them the command says which files to fetch and how to go on.
`:one_gpu` is the same run on one device, each batch in 8 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.celeba("lsd", learned_weight=True)
    config = base.self_distilled(config, base.FACES_UNET, batch_size=256)
    return base.one_gpu(config, variant, parts=8)
