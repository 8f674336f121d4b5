"""Distribution matching distillation (arXiv:2311.18828) on eight Gaussians on a ring, beside stored pairs.

python main.py --config=configs/edm_rings.py:residual --mode=train
python main.py --config=configs/edm_rings.py:residual --mode=sample \
    --config.sample.pairs=100000 --config.sample.steps="(32,)"
python main.py --config=configs/dmd_rings.py --mode=train
"""

from configs import base


def get_config():
    config = base.matching(base.rings, "dmd", "edm_rings_residual", **base.PLANE_GAPS, every=2)
    config = base.paired(config, "edm_rings_residual")
    return base.expect(config, modes=(8,), in_modes=(0.892,), w2=(0.0984,), sliced_w2=(0.027,))
