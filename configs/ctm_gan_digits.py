"""Consistency trajectory model (arXiv:2310.02279) with its critic, without a teacher on scikit-learn's digits.

python main.py --config=configs/ctm_gan_digits.py --mode=train
"""

from configs import base


def get_config():
    config = base.on_levels(base.digits("ctm", intervals=20, weights=(1.0, 0.05)), "variance_exploding", "edm")
    config.train.steps = 3_000  # each costs as much as several without a critic
    config = base.adversarial(
        base.with_classifier(config), weight=0.1, adaptive=True, sees="features", penalties=(1e-3, 0.0)
    )
    return base.expect(config, fd_digits=(2.29, 2.28, 2.86, 2.72, 2.74), coverage=(0.911, 0.927, 0.923, 0.911, 0.897))
