"""Lagrangian self-distillation (arXiv:2505.18825) on AFHQv2 at 64x64, without labels: EDM2's U-Net, a learned weight.
Published, each the best of many checkpoints, on features of another protocol: FID 11.19 7.78 7.00 5.89 5.61 at 1, 2,
4, 8, 16 steps. Trained here by nobody yet.

python main.py --config=configs/lsd_afhq.py --mode=train --config.data.dir=/my/afhq_v2

The folder has AFHQv2's images, in sub-folders or not: labels are not used. The published runs are of 15,803.
`:one_gpu` is the same run on one device, each batch in 8 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.afhq("lsd", learned_weight=True)
    config = base.self_distilled(config, base.FACES_UNET, batch_size=256)
    return base.one_gpu(config, variant, parts=8)
