"""SoFlow (arXiv:2512.15657): alpha-Flow whose alpha decays exponentially on the checkerboard.

python main.py --config=configs/soflow_checker.py --mode=train
"""

from configs import base


def get_config():
    return base.checker("alpha_flow", power=0.0, **base.SOFLOW)
