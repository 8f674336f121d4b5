"""Flow-anchored consistency model (arXiv:2507.03738), without a teacher on the checkerboard.

python main.py --config=configs/facm_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("facm", cosine=0.0)  # of one channel an angle says nothing, and on planes it is biased
