"""LSD on the checkerboard at the size of arXiv:2505.18825: 4x512 network, batch 100,000, about 1.3e17 FLOP.

python main.py --config=configs/lsd_checker_paper.py --mode=train, an hour of a data-centre GPU; :esd, :psd_m, :psd_u
are its others. Not yet run here. The paper's kl_paper of LSD at 1, 2, 4, 8, 16 steps: 0.086 0.077 0.071 0.070 0.071
(published), exact samples 0.066.
"""

from configs import base

METHODS = {"": ("lsd", {}), "esd": ("esd", {}), "psd_m": ("psd", {}), "psd_u": ("psd", {"middle": "uniform"})}


def get_config(variant: str = ""):
    base.lookup.check_name("variant of this config", variant, METHODS)
    method, options = METHODS[variant]
    config = base.checker(method, **options)
    config.network.update(width=512, depth=5)
    config.optimizer.update(name="radam", learning_rate=1e-3, schedule="rsqrt")
    config.train.update(steps=150_000, batch_size=100_000, log_every=100, checkpoint_every=5_000)
    return config
