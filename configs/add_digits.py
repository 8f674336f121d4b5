"""Adversarial diffusion distillation (arXiv:2311.17042) on scikit-learn's digits, on the features of their classifier.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/add_digits.py --mode=train

The classifier's features are those that fd_digits is measured by, which this run is therefore trained towards.
`:latent` has its critic inside of the teacher, as latent ADD (arXiv:2403.12015) does, and asks for no classifier.
"""

from configs import base


def get_config(variant: str = ""):
    config = base.matching(base.digits, "adversarial_distillation", "edm_digits", "critic")
    config.eval.steps = config.sample.steps = (1, 2, 4)
    config.train.steps = 3_000  # each costs as much as several without a critic
    base.expect(base.with_classifier(config), fd_digits=(1.66, 1.86, 2.06), coverage=(0.909, 0.929, 0.907))
    latent = {"method.sees": "teacher", "method.distillation": 0.0, "method.law": ("logit_normal", -1.0, 1.0)}
    return base.vary(config, variant, latent={**latent, "eval.expected_at": 0})
