"""Every field of a config, with its default and its meaning, and the bundle of each data set.

The options of a part (method, network, ...) are the keyword arguments of the function that makes it, and so are
their defaults: `part` copies them here, so that a config shows, and the command line can set, every value.
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from flowmaps import adversaries, couplings, data, interpolants, lookup, methods, networks, predictions


def part(package: ModuleType, name: str, **chosen) -> ConfigDict:
    """The section of a part found by name: its options with their defaults, and what is chosen otherwise."""
    return ConfigDict({"name": name, **package.options(name), **chosen})


DATA_STD = {
    "checker": 1 / 3**0.5,
    "rings": (0.8**2 / 2 + 0.04**2) ** 0.5,
    "digits": 0.75,
    "tfds": 0.5,
    "folder": 0.5,
    "arrays": 0.5,
    "latents": 1.0,
}
"""Of each number of an example, by data set."""


SOFLOW = {
    "schedule": "exponential",
    "between": (0.1, 0.002),
    "diagonal_fraction": 0.75,
    "law": ("logit_normal", -0.2, 0.8),
    "end_law": ("logit_normal", 1.0, 0.8),
    "diagonal_law": ("logit_normal", 0.2, 1.0),
}
"""alpha_flow's options that make it SoFlow (arXiv:2512.15657)."""


DIT = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
"""Width, depth and heads of DiT's sizes (arXiv:2212.09748, table 1)."""


def dit(size: str, patch: int) -> dict[str, int]:
    """The options of the network `dit` that make it DiT-SIZE/PATCH."""
    width, depth, heads = DIT[size]
    return {"patch": patch, "width": width, "depth": depth, "heads": heads}


IN_CONTEXT = {"b": (768, 12, 12), "m": (768, 24, 12), "l": (1024, 32, 16), "xl": (1024, 48, 16)}
"""Those of improved MeanFlow's transformer (arXiv:2512.02012)."""


def in_context(size: str, patch: int = 2) -> dict[str, int]:
    """The options of the network `in_context_dit` that make it iMF-SIZE/PATCH."""
    width, depth, heads = IN_CONTEXT[size]
    return {"patch": patch, "width": width, "depth": depth, "heads": heads, "head_depth": 8}


EDM2 = {"xs": 128, "s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}
"""Width of EDM2's sizes (arXiv:2312.02696, table 4)."""


def edm2(size: str) -> dict[str, Any]:
    """The options of the network `edm2_unet` that make it EDM2-SIZE."""
    shape = {"multipliers": (1, 2, 3, 4), "depth": 3, "attention": (16, 8), "head_width": 64}
    return {"width": EDM2[size], **shape}


def get_config() -> ConfigDict:
    """All fields. A config file starts from the bundle of its data set and says what differs."""
    config = ConfigDict()
    config.seed = 0  # of the initial weights, the batches and the noise
    config.method = part(methods, "flow_matching")
    config.interpolant = part(interpolants, "linear")
    config.coupling = part(couplings, "independent")  # draws the source x0; `scale` is its standard deviation
    config.network = part(networks, "mlp")
    config.prediction = part(predictions, "velocity")  # what the network's output means
    # Role -> {network, optimizer, ema} of the other networks that a method may train, or read frozen: `optimizer` says
    # what differs from the section of that name, `ema` has the decays of averages that are kept in checkpoints; by
    # default there are none, since samples are made by the student alone.
    config.players = ConfigDict()
    config.players.log_variance = ConfigDict({"network": part(networks, "log_variance")})
    config.players.critic = ConfigDict({"network": part(networks, "critic")})
    config.players.features = ConfigDict()  # frozen, of a perceptual distance or a critic: feature maps of images
    config.players.features.network = ConfigDict({"name": placeholder(str)})  # "classifier", or the path of a .py file
    config.players.features.weights = placeholder(str)  # path of an .npz of "layer/part" arrays; "digits": classifier's
    config.adversary = ConfigDict(adversaries.OPTIONS)  # a critic beside any method; of weight 0: none
    config.data = ConfigDict()  # `name` and its options, see flowmaps/data
    config.init_from = placeholder(str)  # a workdir whose averaged weights the student starts from
    config.teacher = ConfigDict()
    config.teacher.workdir = placeholder(str)  # a workdir whose averaged student is the frozen role "teacher"
    config.teacher.weak = placeholder(str)  # that of a weaker model, by which it is guided in place of no label
    config.teacher.guidance = ConfigDict()  # of the teacher, where a method asks for none of its own
    config.teacher.guidance.scale = 1.0
    config.teacher.guidance.interval = (0.0, 1.0)

    config.guidance = ConfigDict()  # classifier-free guidance at sampling
    config.guidance.scale = 1.0  # 1: none
    config.guidance.interval = (0.0, 1.0)  # the times at which it acts
    config.guidance.weak = placeholder(str)  # workdir of a weaker run, by which it guides in place of no label

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"  # any of optax by name: adam, adamw, radam, ...
    config.optimizer.learning_rate = 1e-3  # its peak
    config.optimizer.schedule = "cosine"  # constant | linear | cosine (both to 0) | rsqrt (after decay_steps)
    config.optimizer.warmup_steps = 0  # linear
    config.optimizer.decay_steps = 35_000  # rsqrt only: lr / sqrt(max(step / decay_steps, 1))
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.0  # of optimizers that have one
    config.optimizer.clip_norm = 1.0  # of the global gradient norm

    config.train = ConfigDict()
    config.train.steps = 10_000
    config.train.batch_size = 256  # global: over all hosts and devices
    config.train.accumulate = 1  # parts of a batch whose gradients are averaged before the update
    config.train.ema = (0.999,)  # decays of the averages; the first one is evaluated
    config.train.log_every = 500
    config.train.checkpoint_every = 5_000
    config.train.keep = 3  # newest checkpoints kept
    config.train.keep_best = 1  # best checkpoints kept, by eval.best_metric where eval_every is set
    config.train.keep_period = 0  # every so many steps one is kept for good; 0: none
    config.train.eval_every = 0  # steps between evaluations during training; 0: at the end only
    config.train.max_skipped = 20  # non-finite updates of a player in a row before the run stops with exit code 3

    config.eval = ConfigDict()
    config.eval.steps = (1, 2, 4, 8, 16)  # step counts of the sweep
    config.eval.num_samples = 10_000
    config.eval.batch_size = 10_000
    config.eval.seeds = (0,)
    config.eval.samplers = ("default",)  # samplers and solvers by name; "default": as config.sample says
    config.eval.guidance = ()  # scales to measure with one after another; (): config.guidance.scale
    config.eval.ema = (0,)  # indices into train.ema; -1: the raw weights
    config.eval.metrics = ()  # names in flowmaps/metrics, set by the data's bundle
    config.eval.inception = placeholder(str)  # the network's weights for metrics of images; or $FLOWMAPS_INCEPTION
    config.eval.classifier = placeholder(str)  # that of a classifier of your own for the metric fd_classifier
    config.eval.reference = placeholder(str)  # an .npz of statistics that images are held against; by default their own
    config.eval.statistics = "runs/statistics"  # folder of the data sets' own statistics, each made once
    config.eval.best_metric = ""  # "NAME/STEPS" that picks the best checkpoint, for example "kl_aligned/1"
    config.eval.expected = ConfigDict()  # "NAME/STEPS" -> what this config reached when it was last measured
    config.eval.expected_at = 0  # the training step at which it did

    config.sample = ConfigDict()
    config.sample.sampler = "default"  # default | one_step | composed | renoising | gamma | diagonal
    config.sample.solver = ""  # of the ODE or SDE on the diagonal, such as "ddim(eta=0.5)"; "": the sampler's own
    config.sample.gamma = 0.5  # of the sampler `gamma`
    config.sample.grid = "uniform"  # uniform | log_snr | karras | shifted | given, such as "karras(rho=5)"
    config.sample.steps = (1, 2, 4, 8, 16)  # rows of the picture, all from the same noise
    config.sample.num_samples = 64
    config.sample.seed = 0
    config.sample.start = placeholder(str)  # an image to edit: noised to start_time, then carried to the data (SDEdit)
    config.sample.start_time = 0.5
    config.sample.pairs = 0  # pairs of noise and sample to store in place of pictures, by the most of `steps`; 0: none
    config.sample.points = 1  # states of the way that a pair keeps, at equal times up to the sample
    config.sample.interpolations = 0  # pairs of held-out images of a class whose latents are interpolated; 0: none

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices that hold copies of the weights; -1: all that are left
    config.mesh.fsdp = 1  # devices over which the weights are cut
    config.compilation_cache = placeholder(str)  # folder of compiled programs; none by default
    return config


def vary(config: ConfigDict, variant: str, **variants: Mapping[str, Any]) -> ConfigDict:
    """The config with the values, by dotted name, of the variant after the colon: --config=FILE.py:VARIANT."""
    if variant:
        lookup.check_name("variant of this config", variant, variants)
        config.update_from_flattened_dict(variants[variant])
    return config


def expect(config: ConfigDict, **values: tuple[float, ...]) -> ConfigDict:
    """Notes what a config reached: metric -> one value for each of eval.steps."""
    config.eval.expected_at = config.train.steps
    for metric, reached in values.items():
        for steps, value in zip(config.eval.steps, reached, strict=True):
            config.eval.expected[f"{metric}/{steps}"] = value
    return config


def checker(method: str, **options: Any) -> ConfigDict:
    """The checkerboard (arXiv:2505.18825): a perceptron of 50,000 parameters, minutes on two cores."""
    config = get_config()
    config.data = part(data, "checker")
    config.method = part(methods, method, **options)
    config.coupling.scale = 1 / 3**0.5  # the data's standard deviation, as in the paper
    config.network = part(networks, "mlp", width=128, depth=4, scale=1 / 3**0.5)
    config.optimizer.learning_rate = 3e-3
    config.optimizer.clip_norm = 10.0
    config.train.steps = 80_000
    config.train.batch_size = 256
    config.train.log_every = 2_000
    config.train.checkpoint_every = 20_000
    config.eval.num_samples = 200_000
    config.eval.batch_size = 50_000
    config.eval.metrics = ("kl_aligned", "kl_paper", "w2", "sliced_w2", "mmd")
    config.sample.num_samples = 20_000
    return config


def rings(method: str, **options: Any) -> ConfigDict:
    """Eight Gaussians on a ring, whose modes are counted: the perceptron of the board, a minute on two cores."""
    config = checker(method, **options)
    config.data = part(data, "rings")
    config.coupling.scale = config.network.scale = DATA_STD["rings"]
    config.train.steps = 30_000
    config.train.checkpoint_every = 10_000
    config.eval.num_samples = 10_000
    config.eval.batch_size = 10_000
    config.eval.metrics = ("modes", "w2", "sliced_w2", "mmd")
    return config


def digits(method: str, **options: Any) -> ConfigDict:
    """scikit-learn's handwritten digits with their labels: a residual perceptron, two minutes on two cores."""
    config = get_config()
    config.data = part(data, "digits")
    config.method = part(methods, method, **options)
    config.network = part(networks, "mlp", width=256, depth=4, residual=True)
    config.optimizer.b2 = 0.99
    config.train.steps = 8_000
    config.train.batch_size = 128
    config.train.checkpoint_every = 2_000
    config.eval.num_samples = 1_500
    config.eval.batch_size = 1_500
    config.eval.metrics = ("fd_digits", "kid_digits", "manifold", "nn_ratio")
    config.sample.num_samples = 20
    return config


def on_levels(config: ConfigDict, path: str, prediction: str, **options: Any) -> ConfigDict:
    """A model of noise levels on a data set's bundle: noise of unit variance on the path (with its options), and a
    prediction scaled by the data's standard deviation."""
    std = DATA_STD[config.data.name]
    config.coupling.scale = 1.0
    if "scale" in config.network:
        config.network.scale = 1.0
    config.interpolant = part(interpolants, path, **options)
    config.prediction = part(predictions, prediction, data_std=std)
    if "data_std" in config.method:
        config.method.data_std = std
    return config


def with_classifier(config: ConfigDict) -> ConfigDict:
    """The config of digits with their classifier as the frozen features of a perceptual distance, or of a critic, which
    is small, for it sees images of many channels."""
    config.players.features.update(network={"name": "classifier"}, weights="digits")
    config.players.critic.network.update(width=32, depth=2)
    return config


def denoiser(bundle: Callable[..., ConfigDict], path: str, prediction: str, solver: str, **options: Any) -> ConfigDict:
    """A diffusion model on a data set's bundle, and the solver that its authors sample with."""
    config = on_levels(bundle("diffusion", **options), path, prediction)
    config.sample.solver = solver
    return config


def one_step(config: ConfigDict) -> ConfigDict:
    """The config of a generator that knows no other number of steps; on the board its modes are counted."""
    config.eval.steps = config.sample.steps = (1,)
    if config.data.name == "checker":
        config.eval.metrics += ("modes",)
    return config


def distilled(config: ConfigDict, teacher: str, *, start: bool = True) -> ConfigDict:
    """The config with the run of another one as its teacher, from whose weights the student starts."""
    config.teacher.workdir = f"runs/{teacher}"
    if start:
        config.init_from = config.teacher.workdir
    return config


PLANE_GAPS = {"weighting": "level", "between": (0.2, 0.85)}
"""Options of methods that match laws on planes, where the mean error of two numbers is at times near 0."""


def matching(
    bundle: Callable[..., ConfigDict], method: str, teacher: str, adversary: str = "fake", **options: Any
) -> ConfigDict:
    """A one-step generator on a data set's bundle that matches the law of EDM's denoiser, from which it starts; its
    adversary, a player of the method, learns ten times as fast."""
    config = distilled(on_levels(bundle(method, **options), "variance_exploding", "edm"), teacher)
    config.network.residual = True
    config.train.steps = min(config.train.steps, 30_000)
    config.optimizer.update(learning_rate=1e-4, schedule="constant", b1=0.0)
    if adversary:
        config.players.update({adversary: {"optimizer": {"learning_rate": 1e-3}}})
    return one_step(config)


def adversarial(config: ConfigDict, **options: Any) -> ConfigDict:
    """The config with a critic beside its student, after a tenth of the run."""
    config.adversary.update(start=config.train.steps // 10, **options)
    config.players.critic.optimizer = ConfigDict({"schedule": "constant", "b1": 0.0, "learning_rate": 1e-3})
    return config


def one_gpu(config: ConfigDict, variant: str, parts: int) -> ConfigDict:
    """The config, and as its variant `one_gpu` the same run on one device, whose batches are made of `parts`."""
    return vary(config, variant, one_gpu={"train.accumulate": parts})


def paired(config: ConfigDict, teacher: str, folder: str = "pairs") -> ConfigDict:
    """The config on the pairs that another one's run has made, from whose weights the student starts."""
    config.coupling = part(couplings, "stored", scale=config.coupling.scale, pairs=f"runs/{teacher}/{folder}")
    config.init_from = f"runs/{teacher}"
    return config


def progressive(config: ConfigDict, start: str) -> ConfigDict:
    """Progressive distillation of another config's run: no averages, and a learning rate that falls to 0 in each
    stage."""
    config.init_from = f"runs/{start}"
    config.optimizer.schedule = "linear"
    config.train.ema = ()
    config.eval.ema = (-1,)
    return config


def images(method: str, source: str, **options: Any) -> ConfigDict:
    """Images from `source` (folder, arrays or tfds): DiT-S/4 on pixels, for accelerators; shrink it for a laptop."""
    config = get_config()
    config.data = part(data, source)
    config.method = part(methods, method, **options)
    config.network = part(networks, "dit", dtype="bfloat16", **dit("s", 4))
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "constant"
    config.optimizer.warmup_steps = 5_000
    config.train.steps = 400_000
    config.train.ema = (0.9999,)
    config.train.log_every = 100
    config.train.checkpoint_every = 5_000
    config.train.keep_period = 50_000
    config.eval.num_samples = 10_000
    config.eval.batch_size = 500
    return config


def cifar10(method: str, **options: Any) -> ConfigDict:
    """CIFAR-10 at 32x32 with its labels: DDPM++ on pixels, for accelerators."""
    config = images(method, "tfds", **options)
    config.data.update(dataset="cifar10", flip=True)
    config.network = part(networks, "unet", width=128, multipliers=(2, 2, 2), depth=4, attention=(16,), dropout=0.13)
    config.optimizer.name = "adam"
    return config


def imagenet64(method: str, **options: Any) -> ConfigDict:
    """ImageNet at 64x64 from a folder, with its labels: ADM's U-Net on pixels, for accelerators."""
    config = images(method, "folder", **options)
    config.data.update(size=64, crop=-1, resize=True)
    shape = {"width": 192, "multipliers": (1, 2, 3, 4), "depth": 3, "attention": (32, 16, 8), "heads": 4}
    config.network = part(networks, "unet", modulation="scale_shift", **shape)
    config.optimizer.update(name="adam", warmup_steps=0)
    return config


def edm2_imagenet64(method: str, **options: Any) -> ConfigDict:
    """The same data by EDM2-S, of 280 million parameters, trained as its authors do (arXiv:2312.02696): 2^30 images at
    a learning rate of 0.01 that falls, of an update the angle by which the weights turn."""
    config = imagenet64(method, **options)
    config.network = part(networks, "edm2_unet", dtype="bfloat16", **edm2("s"))
    schedule = {"schedule": "rsqrt", "decay_steps": 35_000, "warmup_steps": 4_883}  # 10 M images
    config.optimizer.update(learning_rate=1e-2, b2=0.99, clip_norm=0.0, **schedule)
    config.train.update(steps=524_288, batch_size=2048)
    return config


def imagenet256(method: str, **options: Any) -> ConfigDict:
    """ImageNet at 256x256 as Stable Diffusion's latents, with its labels: DiT-XL/2, for accelerators."""
    config = images(method, "latents", **options)
    config.network.update(dit("xl", 2))
    config.optimizer.update(warmup_steps=0, clip_norm=0.0)
    config.train.batch_size = 256
    return config


def celeba(method: str, **options: Any) -> ConfigDict:
    """CelebA at 64x64 (centre crop 140, antialiased resize), unconditional: DiT-B/4 on pixels, for accelerators."""
    config = images(method, "tfds", **options)
    config.data.update(dataset="celeb_a", crop=140, size=64, flip=True)
    config.network.update(dit("b", 4))
    return config


def afhq(method: str, **options: Any) -> ConfigDict:
    """AFHQv2 at 64x64 from a folder of its images, unconditional: DiT-B/4 on pixels, for accelerators."""
    config = images(method, "folder", **options)
    config.data.update(size=64, crop=-1, resize=True, flip=True, labels=False)
    config.network.update(dit("b", 4))
    return config


def fashion_mnist(method: str, **options: Any) -> ConfigDict:
    """Fashion-MNIST at 28x28 from an .npz file, with its labels, padded to 32x32: a U-Net of 4 million parameters, for
    one GPU or a patient CPU."""
    config = images(method, "arrays", **options)
    config.data.update(path="fashion_mnist.npz", pad=2)
    config.network = part(networks, "unet", width=64, multipliers=(1, 2, 2), depth=2, attention=(8,), dtype="bfloat16")
    config.optimizer.update(name="adam", learning_rate=3e-4, schedule="cosine", warmup_steps=500)
    config.train.update(steps=20_000, batch_size=256, ema=(0.999,), checkpoint_every=2_000)
    return config


CIFAR10_UNET = {"multipliers": (2, 2, 2), "depth": 4, "attention": (16,), "dropout": 0.13}
FACES_UNET = {"multipliers": (1, 2, 3, 4), "depth": 3, "attention": (16, 8), "dtype": "bfloat16"}
"""EDM2's U-Nets of arXiv:2505.18825 at 32x32 and at 64x64."""


def self_distilled(config: ConfigDict, shape: Mapping[str, Any], *, batch_size: int) -> ConfigDict:
    """Self-distillation of flow maps on images as in arXiv:2505.18825: EDM2's U-Net of width 128 and a `shape`, RAdam
    of 1e-2 that falls after 35,000 steps, noise of the data's deviation, 204.8 million images; no labels, no flips."""
    config.data.update(flip=False, labels=False)
    config.coupling.scale = 0.5
    config.network = part(networks, "edm2_unet", width=128, scale=0.5, **shape)
    config.optimizer.update(name="radam", learning_rate=1e-2, schedule="rsqrt", warmup_steps=0, clip_norm=1.0)
    config.train.update(steps=204_800_000 // batch_size, batch_size=batch_size)
    return config
