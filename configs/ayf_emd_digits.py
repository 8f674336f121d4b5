"""Align Your Flow's Eulerian objective (arXiv:2506.14603), without a teacher on scikit-learn's digits.

python main.py --config=configs/ayf_emd_digits.py --mode=train

`:finetuned` goes on from its weights with a critic of the samples, by the relativistic game with R1 and R2, as there.
"""

from configs import base


def get_config(variant: str = ""):
    config = base.digits("align_your_flow", warmup_steps=2000)
    if variant == "finetuned":
        config = base.adversarial(config, weight=0.1, adaptive=True, game="relativistic", penalties=(0.1, 0.1))
    finetuned = {"init_from": "runs/ayf_emd_digits", "method.warmup_steps": 0, "optimizer.learning_rate": 1e-4}
    return base.vary(config, variant, finetuned=finetuned)
