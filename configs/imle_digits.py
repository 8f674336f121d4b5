"""Implicit maximum likelihood (arXiv:1809.09087) on scikit-learn's digits, without a teacher.

python main.py --config=configs/imle_digits.py --mode=train

Few draws make what many examples are near to: with 16 of them and 128 examples a step, which cost the same, the recall
is 0.04. Two minutes on one core.
"""

from configs import base


def get_config():
    config = base.one_step(base.digits("imle", draws=64))
    config.train.batch_size = 32
    config.train.steps = 3_000
    return base.expect(config, fd_digits=(2.96,), coverage=(0.896,))
