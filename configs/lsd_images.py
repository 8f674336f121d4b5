"""Lagrangian self-distillation on your images: a folder of PNG or JPG files, an .npz file, or a TFDS data set.

python main.py --config=configs/lsd_images.py:folder --config.data.dir=/my/images --mode=train
python main.py --config=configs/lsd_images.py:arrays --config.data.path=/my/images.npz --mode=train
python main.py --config=configs/lsd_images.py:tfds --config.data.dataset=celeb_a --mode=train

Its values are a beginning for an accelerator; on a laptop add --config.network.width=64 --config.network.depth=3
--config.network.heads=4 --config.train.batch_size=64 --config.train.steps=5000 --config.optimizer.warmup_steps=200
--config.optimizer.learning_rate=1e-3 --config.train.ema="(0.999,)".
"""

from configs import base
from flowmaps import lookup


def get_config(source: str = "folder"):
    lookup.check_name("variant of this config", source, ("folder", "arrays", "tfds"))
    return base.images("lsd", source)
