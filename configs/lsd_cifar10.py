"""Lagrangian self-distillation (arXiv:2505.18825) on CIFAR-10, without labels: EDM2's U-Net, a learned weight.
Published, each the best of many checkpoints, on features of another protocol: FID 8.10 4.37 3.34 3.33 3.57 at 1, 2,
4, 8, 16 steps. Trained here by nobody yet.

python main.py --config=configs/lsd_cifar10.py --mode=train --config.data.dir=/my/tfds

The data set is TFDS's cifar10 in array_record files. `:one_gpu` is the same run on one device, each batch in 4 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.cifar10("lsd", learned_weight=True)
    config = base.self_distilled(config, base.CIFAR10_UNET, batch_size=512)
    return base.one_gpu(config, variant, parts=4)
