"""Flow-anchored consistency distillation (arXiv:2507.03738) on scikit-learn's digits.

python main.py --config=configs/flow_matching_digits.py --mode=train
python main.py --config=configs/facm_distilled_digits.py --mode=train
"""

from configs import base


def get_config():
    return base.distilled(base.digits("facm", velocity="teacher", cosine=0.0), "flow_matching_digits")
