"""Flow matching (arXiv:2210.02747) on ImageNet at 64x64, the teacher of Align Your Flow: EDM2-S, its optimizer and
length (arXiv:2312.02696); no paper's own run. Trained here by nobody yet.

python main.py --config=configs/flow_matching_imagenet64.py --mode=train --config.data.dir=/my/images

`:weak` is EDM2-XS, trained for an eighth of the steps: what guides it. The folder has a sub-folder of PNG images for
each class.
"""

from configs import base


def get_config(variant=""):
    config = base.edm2_imagenet64("flow_matching")
    return base.vary(config, variant, weak={"network.width": base.EDM2["xs"], "train.steps": 65_536})
