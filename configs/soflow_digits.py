"""SoFlow (arXiv:2512.15657): alpha-Flow whose alpha decays exponentially on scikit-learn's digits.

python main.py --config=configs/soflow_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.digits("alpha_flow", power=0.5, **base.SOFLOW)
