"""Shortcut model (arXiv:2410.12557) on CelebA, 64x64 pixels. Trained to the end by nobody yet: no figures to expect.

python main.py --config=configs/shortcut_celeba.py --mode=train --workdir=runs/shortcut_celeba

The images cannot be fetched by a program: without them the command says which files to fetch and how to go on.
"""

from configs import base


def get_config():
    config = base.celeba("shortcut")
    config.optimizer.weight_decay = 0.1  # the paper's, who report that stability needs it
    return config
