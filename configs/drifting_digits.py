"""Drifting (arXiv:2602.04770) on scikit-learn's digits, without a teacher, each class to its own examples.

python main.py --config=configs/drifting_digits.py --mode=train

Of a group of 256 a class sees 26 examples; of groups of 64, six, it learns half as well. Two minutes on one core.
"""

from configs import base


def get_config():
    config = base.one_step(base.digits("drifting", group=256))
    config.train.batch_size = 256
    config.train.steps = 4_000
    return base.expect(config, fd_digits=(2.21,), coverage=(0.903,), recall=(0.754,))
