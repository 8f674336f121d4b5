"""SoFlow (arXiv:2512.15657): alpha-Flow whose alpha decays exponentially on the checkerboard.

python main.py --config=configs/soflow_checker.py --mode=train
"""

from configs import base


def get_config():
    laws = {
        "law": ("logit_normal", -0.2, 0.8),
        "end_law": ("logit_normal", 1.0, 0.8),
        "diagonal_law": ("logit_normal", 0.2, 1.0),
    }
    config = base.checker("alpha_flow", schedule="exponential", between=(0.1, 0.002), power=0.0, **laws)
    config.method.diagonal_fraction = 0.75
    return config
