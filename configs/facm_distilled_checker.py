"""Flow-anchored consistency distillation (arXiv:2507.03738) on the checkerboard.

python main.py --config=configs/flow_matching_checker.py --mode=train
python main.py --config=configs/facm_distilled_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.distilled(base.checker("facm", velocity="teacher", cosine=0.0), "flow_matching_checker")
