"""Flow matching (arXiv:2210.02747) on ImageNet at 64x64, the teacher of Align Your Flow: ADM's U-Net with EDM's
optimizer (arXiv:2206.00364); no paper's own run. Trained here by nobody yet.

python main.py --config=configs/flow_matching_imagenet64.py --mode=train --config.data.dir=/my/images

`:weak` is two thirds as wide and trained for an eighth of the steps: what guides it. The folder has a sub-folder of PNG
images for each class.
"""

from configs import base


def get_config(variant=""):
    config = base.imagenet64("flow_matching", modulation="double_norm")
    config.network.dropout = 0.1
    config.optimizer.update(warmup_steps=2_441, clip_norm=0.0)  # 10 M images
    config.train.update(steps=610_352, batch_size=4096, ema=(0.5 ** (4096 / 50_000_000),))
    return base.vary(config, variant, weak={"network.width": 128, "train.steps": 76_294})
