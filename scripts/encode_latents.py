"""Encodes the images of a data set, by Stable Diffusion's autoencoder, as latents to train on.

    python scripts/encode_latents.py --data="tfds(dataset='faces',dir='/my/tfds')" --out=/my/latents --flip \
        --autoencoder=/my/sd-vae-ft-mse/diffusion_pytorch_model.safetensors

The data are named as in a config, with their options in brackets: "folder(dir='/my/images',crop=-1,size=256,
resize=True)", also of a .zip, or "arrays(path='/my/images.npz')". The training images are encoded, over all devices of
the machine. What is stored are the mean and the standard deviation of each latent, so that training draws anew from
them; with --flip also those of the mirror image. Train with --config.data.name=latents --config.data.dir=/my/latents.

After an interruption, a kill too, the same command goes on. Several processes or machines that share the folder take
parts of it by --shard=0/4, --shard=1/4, and so on; whichever ends last closes the folder, and until then nobody takes
it for a data set.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

import jax
import numpy as np

from flowmaps import autoencoders, coding, data, latent_files, lookup, processes, sharding
from flowmaps.coding import Encode
from flowmaps.errors import MissingError, UsageError
from flowmaps.networks.autoencoder import Autoencoder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the images, such as \"folder(dir='/my/images')\"")
    parser.add_argument("--autoencoder", required=True, help="its weights, a .safetensors file")
    parser.add_argument("--out", required=True, help="the folder of the latents")
    parser.add_argument("--flip", action="store_true", help="encode the mirror images too")
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"), help="of what is stored")
    parser.add_argument("--batch_size", type=int, default=32, help="images on a device at a time")
    parser.add_argument("--shard", default="0/1", help="I/N: the files I, I + N, I + 2 N, ... alone; I from 0 on")
    try:
        print(encode(**vars(parser.parse_args(arguments))))
    except (UsageError, MissingError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def encode(
    data: str,
    autoencoder: str,
    out: str,
    flip: bool = False,
    dtype: str = "float16",
    batch_size: int = 32,
    shard: str = "0/1",
) -> str:
    """Makes the files of the folder `out` that are this process's and are missing, and closes the folder where these
    were the last. Returns what has been done.

    Raises MissingError where there are no images or weights; UsageError where they do not fit, the folder holds other
    latents, or the disk is full.
    """
    index, count = processes.share(shard)
    dataset, pretrained = images(data), autoencoders.read(autoencoder)
    origin = {
        "images": dataset.fingerprint,
        "encoder": autoencoders.encoder_digest(pretrained),
        "count": len(dataset.train),
        "shape": latent_shape(dataset.shape, pretrained.module),
        "num_classes": dataset.num_classes,
        "copies": 1 + flip,
        "dtype": dtype,
        "shard": latent_files.size(len(dataset.train)),
    }
    folder = Path(out).expanduser().resolve()
    latent_files.begin(folder, origin)
    files = latent_files.files(folder, origin)
    run = coding.encoder(pretrained, sharding.make_mesh(), mirrored=flip, dtype=dtype)
    for number in range(index, len(files), count):
        if not files[number].is_file():
            latent_files.write(files[number], records(dataset.train, run, number, origin, batch_size))
            print(f"{files[number].name} is written", file=sys.stderr)
    left = sum(not file.is_file() for file in files)
    if left:
        return f"{folder}: {left} of {len(files)} files are left to other processes"
    latent_files.finish(folder, origin)
    return str(folder)


def images(text: str) -> data.Dataset:
    """The data set of a text such as "folder(dir='/my/images')". Raises UsageError where it is not one of images."""
    name, options = lookup.parse_call("--data", text)
    if options.get("flip"):
        raise UsageError(f"--data={text!r} mirrors at random: leave its flip out, and give --flip to encode both")
    dataset = data.load(name, **options)
    if dataset.kind != "image":
        raise UsageError(f"--data={text!r} are {dataset.kind} data, not images")
    return dataset


def latent_shape(shape: tuple[int, ...], module: Autoencoder) -> list[int]:
    """Of the latents of images of `shape`. Raises UsageError where these cannot be encoded."""
    height, width, channels = shape
    if channels != module.image_channels or height % module.factor or width % module.factor:
        raise UsageError(
            f"the images are {height}x{width} with {channels} channels, and the autoencoder takes "
            f"{module.image_channels} channels and sides that are multiples of {module.factor}: set crop and size"
        )
    return [height // module.factor, width // module.factor, module.latent_channels]


def records(source: data.Source, run: Encode, number: int, origin: dict[str, Any], batch_size: int) -> np.ndarray:
    """The records of shard `number`, encoded in equal batches, of which the last one is filled up and cut."""
    import grain

    first, size = number * origin["shard"], batch_size * jax.device_count()
    last = min(first + origin["shard"], origin["count"])

    def row(index: int) -> dict[str, np.ndarray]:
        return {name: x[0] for name, x in source.batch(np.array([min(index, last - 1)])).items()}

    rows = grain.MapDataset.range(first, first + -(-(last - first) // size) * size).map(row)
    encoded = [(batch["label"], *run(batch["x1"])) for batch in rows.to_iter_dataset().batch(size)]
    made = np.empty(last - first, latent_files.record(tuple(origin["shape"]), origin["copies"], origin["dtype"]))
    for name, parts in zip(made.dtype.names, zip(*encoded, strict=True), strict=True):
        made[name] = np.concatenate([np.asarray(part) for part in parts])[: last - first]
    return made


if __name__ == "__main__":
    main()
