"""MeanFlow (arXiv:2505.13447) on AFHQv2 at 64x64, without labels: DiT-B/4 and the paper's options for ImageNet; no
paper's own run. Trained here by nobody yet.

python main.py --config=configs/mean_flow_afhq.py --mode=train --config.data.dir=/my/afhq_v2

The folder has AFHQv2's images, in sub-folders or not: labels are not used. `:one_gpu` is the same run on one device,
each batch in 4 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.afhq("mean_flow")
    config.optimizer.b2 = 0.95
    return base.one_gpu(config, variant, parts=4)
