"""Files in the shape of CelebA's own, with a few images."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def save(folder: Path, *, number: int) -> tuple[Path, Path]:
    """The archive of images and the file of their splits: two thirds to train, a sixth to validate, a sixth to test."""
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for i in range(1, number + 1):
            archive.writestr(f"img_align_celeba/{i:06d}.jpg", jpeg(i))
    splits = [0 if i <= number * 2 // 3 else 1 if i <= number * 5 // 6 else 2 for i in range(1, number + 1)]
    lines = [f"{i:06d}.jpg {split}\n" for i, split in enumerate(splits, start=1)]
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    return folder / "img_align_celeba.zip", folder / "list_eval_partition.txt"


def jpeg(seed: int, width: int = 178, height: int = 218) -> bytes:
    """A file of smooth noise."""
    small = np.random.default_rng(seed).integers(0, 256, (14, 11, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height)).save(buffer, "JPEG")
    return buffer.getvalue()
