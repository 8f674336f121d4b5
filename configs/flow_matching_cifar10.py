"""Flow matching (arXiv:2210.02747) on CIFAR-10, without labels, with the optimizer of TorchCFM, Adam of 2e-4
and 400,000 steps of 128, and EDM's larger U-Net. Published with theirs: FID about 3.5 by an adaptive solver, and with
minibatch optimal transport. Trained here by nobody yet.

python main.py --config=configs/flow_matching_cifar10.py --mode=train --config.data.dir=/my/tfds

The data set is TFDS's cifar10 in array_record files. It is a run for one GPU as it is.
"""

from configs import base


def get_config():
    config = base.cifar10("flow_matching")
    config.data.labels = False
    config.network.dropout = 0.1
    config.optimizer.learning_rate = 2e-4
    config.train.batch_size = 128
    config.sample.solver = "heun"
    config.sample.steps = config.eval.steps = (4, 8, 16, 32, 64, 128)
    return config
