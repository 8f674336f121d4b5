"""Progressive distillation (arXiv:2202.00512) on CIFAR-10, from 8,192 steps to 1: 50,000 updates a halving, twice that
for 2 steps and for 1. Published: FID 9.12 at 1 step, 4.51 at 2, without labels, which are given here, and of predicted
data, not v. Trained here by nobody yet.

python main.py --config=configs/vdm_cosine_cifar10.py --mode=train --config.data.dir=/my/tfds
python main.py --config=configs/pd_cifar10.py --mode=train --config.data.dir=/my/tfds

The data set is TFDS's cifar10 in array_record files. The paper clips the predicted data when it samples; that
is left out here.
"""

from configs import base, vdm_cosine_cifar10


def get_config():
    config = base.on_levels(base.cifar10("progressive_distillation", first=8192), "trigonometric", "v")
    config = base.progressive(config, "vdm_cosine_cifar10")
    config.network = vdm_cosine_cifar10.get_config().network
    config.network.dropout = 0.0
    config.optimizer.update(learning_rate=5e-5, warmup_steps=0)
    config.train.update(steps=15 * 50_000, batch_size=128)  # 11 halvings, and 2 twice as long
    config.sample.steps = config.eval.steps = (1, 2, 4, 8)
    return config
