"""Truncated consistency model (arXiv:2410.14895) on the checkerboard: the second stage of ECT.

python main.py --config=configs/ect_checker.py --mode=train
python main.py --config=configs/tcm_checker.py --mode=train
"""

from configs import base


def get_config():
    # Squared: the paper's robust distance is biased where velocities are skewed, and in few dimensions they are.
    config = base.checker("truncated_consistency", distance="squared")
    config = base.on_levels(config, "variance_exploding", "edm", sigma_min=0.0)
    return base.distilled(config, "ect_checker")
