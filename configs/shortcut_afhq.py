"""Shortcut model (arXiv:2410.12557) on AFHQv2 at 64x64, without labels, by DiT-B/4; no paper's own run. Trained here by
nobody yet.

python main.py --config=configs/shortcut_afhq.py --mode=train --config.data.dir=/my/afhq_v2

The folder has AFHQv2's images, in sub-folders or not: labels are not used. `:one_gpu` is the same run on one device,
each batch in 4 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.afhq("shortcut")
    config.optimizer.weight_decay = 0.1  # the paper's, who report that stability needs it
    config.sample.steps = config.eval.steps = (1, 2, 4, 8, 16, 128)
    return base.one_gpu(config, variant, parts=4)
