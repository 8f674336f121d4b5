"""Shortcut model (arXiv:2410.12557) on CelebA, 64x64 pixels, without labels, by DiT-B/4. The paper's are of CelebA-HQ
at 256x256: FID 20.5, 13.8, 6.9 at 1, 4, 128 steps. Trained to the end by nobody yet: no figures to expect.

python main.py --config=configs/shortcut_celeba.py --mode=train --config.data.dir=/my/tfds

The images cannot be fetched by a program: without them the command says which files to fetch and how to go on.
`:one_gpu` is the same run on one device, each batch in 4 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.celeba("shortcut")
    config.optimizer.weight_decay = 0.1  # the paper's, who report that stability needs it
    config.sample.steps = config.eval.steps = (1, 2, 4, 8, 16, 128)
    return base.one_gpu(config, variant, parts=4)
