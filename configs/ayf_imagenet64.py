"""Align Your Flow's Eulerian map distillation (arXiv:2506.14603) on ImageNet at 64x64: a teacher guided by a weaker
one, with a scale of 1 to 3 as an input. EDM2-S, without the adversarial finetuning, which needs a discriminator. The
scales, optimizer, batch, length, average and law of times are unverified. Trained here by nobody yet.

python main.py --config=configs/flow_matching_imagenet64.py --mode=train --config.data.dir=/my/images
python main.py --config=configs/flow_matching_imagenet64.py:weak --mode=train --config.data.dir=/my/images
python main.py --config=configs/ayf_imagenet64.py --mode=train --config.data.dir=/my/images

The folder has a sub-folder of PNG images for each class. --config.guidance.scale asks for a scale when it samples.
"""

from configs import base


def get_config():
    options = {"velocity": "teacher", "guidance": (1.0, 3.0), "warmup_steps": 10_000, "most": 0.99, "constant": 0.1}
    config = base.edm2_imagenet64("align_your_flow", **options)
    config = base.distilled(config, "flow_matching_imagenet64")
    config.teacher.weak = "runs/flow_matching_imagenet64_weak"
    config.optimizer.update(learning_rate=1e-4, schedule="constant", warmup_steps=0, clip_norm=10.0)
    config.train.steps = 50_000
    config.sample.steps = config.eval.steps = (1, 2, 4)
    return config
