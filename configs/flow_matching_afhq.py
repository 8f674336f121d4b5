"""Flow matching (arXiv:2210.02747) on AFHQv2 at 64x64, without labels: the optimizer and DiT-B/4 of the shortcut model
beside it, for comparison; no paper's own run. Trained here by nobody yet.

python main.py --config=configs/flow_matching_afhq.py --mode=train --config.data.dir=/my/afhq_v2

The folder has AFHQv2's images, in sub-folders or not: labels are not used. `:one_gpu` is the same run on one device,
each batch in 4 parts.
"""

from configs import base


def get_config(variant=""):
    config = base.afhq("flow_matching")
    config.sample.solver = "heun"
    config.sample.steps = config.eval.steps = (4, 8, 16, 32, 64, 128)
    return base.one_gpu(config, variant, parts=4)
