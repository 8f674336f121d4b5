"""TrigFlow (arXiv:2410.11081) on ImageNet at 64x64, the teacher of sCD: EDM2-S, its optimizer and length
(arXiv:2312.02696), and the noise levels of sCT's law, unverified here. Its condition scales what lies between a
block's convolutions, as EDM2's does; the paper's norms on the way are not in it. Trained here by nobody yet.

python main.py --config=configs/trigflow_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class.
"""

from configs import base


def get_config():
    config = base.edm2_imagenet64("diffusion", weighting="edm", law=("log_normal", -1.0, 1.4))
    config = base.on_levels(config, "trigonometric", "edm")
    config.coupling.scale = config.prediction.data_std
    config.sample.solver = "ddim"
    return config
