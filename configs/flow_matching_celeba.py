"""Flow matching (arXiv:2210.02747) on CelebA at 64x64, without labels: the optimizer and DiT-B/4 of the shortcut model
beside it, for comparison; no paper's own run. Trained here by nobody yet.

python main.py --config=configs/flow_matching_celeba.py --mode=train --config.data.dir=/my/tfds

The images cannot be fetched by a program: without them the command says which files to fetch and how to go on.
`:one_gpu` is the same run on one device, each batch in 4 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.celeba("flow_matching")
    config.sample.solver = "heun"
    config.sample.steps = config.eval.steps = (4, 8, 16, 32, 64, 128)
    return base.one_gpu(config, variant, parts=4)
