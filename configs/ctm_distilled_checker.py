"""Consistency trajectory model (arXiv:2310.02279), of a teacher on the checkerboard.

python main.py --config=configs/edm_checker.py --mode=train
python main.py --config=configs/ctm_distilled_checker.py --mode=train
"""

from configs import base


def get_config():
    config = base.checker("ctm", leg="heun", intervals=17, most_steps=17, adaptive=True)
    return base.distilled(base.on_levels(config, "variance_exploding", "edm"), "edm_checker")
