"""Flow matching on eight Gaussians on a ring.

python main.py --config=configs/flow_matching_rings.py --mode=train
"""

from configs import base


def get_config():
    return base.rings("flow_matching")
