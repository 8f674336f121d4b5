"""Shortcut model (arXiv:2410.12557) on CIFAR-10 with its labels, by DiT-B/2; the paper has no run of it.
Trained here by nobody yet.

python main.py --config=configs/shortcut_cifar10.py --mode=train --config.data.dir=/my/tfds

The data set is TFDS's cifar10 in array_record files. `:one_gpu` is the same run on one device, each batch in 2 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.cifar10("shortcut", label_dropout=0.1)
    config.network = base.part(base.networks, "dit", dtype="bfloat16", **base.dit("b", 2))
    config.optimizer.update(name="adamw", weight_decay=0.1)
    config.sample.steps = config.eval.steps = (1, 2, 4, 8, 16, 128)
    return base.one_gpu(config, variant, parts=2)
