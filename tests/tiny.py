"""A config whose run takes seconds, for tests of what happens around the training: a small network on the checker."""

from ml_collections import ConfigDict

from configs import base
from flowmaps import data, methods, networks


def get_config(variant: str = "") -> ConfigDict:
    """`eight`: for eight devices. `stages`: progressive distillation from 8 steps to 1, in 20, 20 and 40 steps."""
    config = base.get_config()
    config.method = base.part(methods, "flow_matching")
    config.network = base.part(networks, "mlp", width=8, depth=1)
    config.data = base.part(data, "checker")
    config.optimizer.schedule = "constant"
    config.train.steps = 40
    config.train.batch_size = 64 if variant == "eight" else 8
    config.train.log_every = 1
    config.train.checkpoint_every = 10
    config.eval.metrics = ("sliced_w2",)
    config.eval.num_samples = 64
    config.eval.steps = (1, 2)
    config.sample.steps = (1,)
    config.sample.num_samples = 16
    if variant == "stages":
        config.method = base.part(methods, "progressive_distillation", first=8, longer=1)
        config.train.steps = 80
        config.train.ema, config.eval.ema = (), (-1,)
        config.eval.metrics = ()
    return config
