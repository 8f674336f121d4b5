"""Consistency distillation (arXiv:2303.01469) with an adversarial term on scikit-learn's digits.

python main.py --config=configs/edm_digits.py --mode=train
python main.py --config=configs/cd_gan_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.digits("consistency", leg="heun", schedule="doubling", intervals=(17, 17), initial_decay=0.95)
    config = base.distilled(base.on_levels(config, "variance_exploding", "edm"), "edm_digits")
    config.train.steps = 3_000  # each costs as much as several without a critic
    config = base.adversarial(
        base.with_classifier(config), weight=0.1, adaptive=True, sees="features", penalties=(1e-3, 0.0)
    )
    return base.expect(config, fd_digits=(2.06, 2.08, 1.77, 1.32, 1.3), coverage=(0.908, 0.9, 0.927, 0.936, 0.947))
