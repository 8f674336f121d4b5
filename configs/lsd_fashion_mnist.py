"""Lagrangian self-distillation (arXiv:2505.18825) on Fashion-MNIST, padded to 32x32, with its labels, by a U-Net of
bfloat16. Not trained to the end here: no figures to expect.

python main.py --config=configs/lsd_fashion_mnist.py --mode=train --config.data.path=/my/fashion_mnist.npz

The file has uint8 images train_x [60000, 28, 28] and labels train_y, and test_x, test_y beside them.
--config.eval.classifier=classifier.npz --config.eval.metrics="('fd_classifier',)" measures it by the features of a
classifier, which scripts/train_classifier.py trains.
"""

from configs import base


def get_config():
    return base.fashion_mnist("lsd")
