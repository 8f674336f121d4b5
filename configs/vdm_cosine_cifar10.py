"""Cosine schedule with a weight of max(SNR, 1) (arXiv:2202.00512) on CIFAR-10, the model that progressive distillation
starts from: its U-Net of width 256, with v-prediction, one of the paper's, in place of its predicted data. The paper
has no labels, which are given here, and leaves the number of steps open here. Trained here by nobody yet.

python main.py --config=configs/vdm_cosine_cifar10.py --mode=train --config.data.dir=/my/tfds

The data set is TFDS's cifar10 in array_record files.
"""

from configs import base


def get_config():
    config = base.denoiser(base.cifar10, "trigonometric", "v", "ddim", weighting="truncated_snr")
    shape = {"width": 256, "multipliers": (1, 1, 1), "depth": 3, "attention": (16, 8), "modulation": "scale_shift"}
    config.network.update(dropout=0.2, **shape)
    config.optimizer.update(name="adamw", learning_rate=2e-4, warmup_steps=1_000, weight_decay=0.001)
    config.train.update(steps=800_000, batch_size=128)
    return config
