"""MeanFlow (arXiv:2505.13447) on CIFAR-10, without labels: a U-Net of 55 million parameters, 800,000 steps of 1,024.
Published: FID 2.92 at 1 evaluation. EDM's augmentation, which the paper has, is left out here. Trained here by
nobody yet.

python main.py --config=configs/mean_flow_cifar10.py --mode=train --config.data.dir=/my/tfds

The data set is TFDS's cifar10 in array_record files. `:one_gpu` is the same run on one device, each batch in 8 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.cifar10(
        "mean_flow", diagonal_fraction=0.25, law=("logit_normal", 2.0, 2.0), power=0.75, constant=1e-3
    )
    config.data.labels = False
    config.network.dropout = 0.2
    config.optimizer.update(learning_rate=6e-4, warmup_steps=9_766)
    config.train.update(steps=800_000, batch_size=1024, ema=(0.99995,))
    config.sample.steps = config.eval.steps = (1, 2, 4)
    return base.one_gpu(config, variant, parts=8)
