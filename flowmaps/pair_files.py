"""The files of stored pairs: shards of float32 examples in array_record, each whole or not there."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from flowmaps.files import whole

SIZE = 8192
"""Examples in a file that is made."""


def files(folder: Path, num_pairs: int, each: int) -> list[Path]:
    """The files of so many examples, `each` in one of them, which may not be there yet."""
    count = -(-num_pairs // each)
    return [folder / f"pairs-{number:05d}-of-{count:05d}.array_record" for number in range(count)]


def write(file: Path, examples: Float[np.ndarray, "n k *d"]) -> None:
    """Writes a shard, whole."""
    from array_record.python import array_record_module

    with whole(file) as aside:
        writer = array_record_module.ArrayRecordWriter(str(aside), "group_size:1,uncompressed")
        for example in np.asarray(examples, np.float32):
            writer.write(example.tobytes())
        writer.close()
