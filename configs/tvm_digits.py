"""Terminal Velocity Matching (arXiv:2511.19797) on scikit-learn's digits.

python main.py --config=configs/tvm_digits.py --mode=train

`:guided` learns guidance of scales 1 to 2 as an input, which --config.guidance.scale then asks for.
"""

from configs import base


def get_config(variant=""):
    guided = {"method.guidance": (1.0, 2.0), "method.label_dropout": 0.1, "prediction.name": "scaled"}
    return base.vary(base.digits("tvm"), variant, guided=guided)
