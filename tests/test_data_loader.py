"""The loader gives one stream, whatever the number of processes and wherever it is taken up again."""

import itertools

import numpy as np
import pytest

from flowmaps import data
from flowmaps.data._images import Images
from flowmaps.errors import UsageError


def numbered(count, flip=False):
    """Images whose left pixel tells their number, and whose label is that number."""
    pixels = np.zeros((count, 1, 2, 1), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    return Images(pixels, np.arange(count), flip=flip)


SOURCES = {
    "checker": data.load("checker").train,
    "digits": data.load("digits").train,
    "few": numbered(7),
    "flipped": numbered(60, flip=True),
}


def take(source, count, **options):
    batches = list(itertools.islice(data.loader(source, **({"batch_size": 16, "seed": 1} | options)), count))
    return {name: np.stack([batch[name] for batch in batches]) for name in ("x1", "label")}


def equal(a, b):
    return all(np.array_equal(a[name], b[name]) for name in ("x1", "label"))


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", SOURCES)
def test_processes_take_contiguous_blocks_of_the_same_batches(name, processes):
    parts = [take(SOURCES[name], 12, process_index=p, process_count=processes) for p in range(processes)]
    together = {key: np.concatenate([part[key] for part in parts], axis=1) for key in parts[0]}
    assert parts[0]["x1"].shape[1] == 16 // processes
    assert equal(together, take(SOURCES[name], 12))


@pytest.mark.parametrize("name", SOURCES)
def test_a_loader_taken_up_again_continues_exactly(name):
    whole = take(SOURCES[name], 12)
    first = data.loader(SOURCES[name], batch_size=16, seed=1)
    for _ in range(5):
        next(first)
    assert first.position == 5
    rest = take(SOURCES[name], 7, position=first.position)
    assert equal(rest, {key: value[5:] for key, value in whole.items()})
    second = take(SOURCES[name], 7, position=5, process_index=1, process_count=2)
    assert equal(second, {key: value[5:, 8:] for key, value in whole.items()})


def test_the_next_batch_is_brought_before_this_one_is_given():
    """And neither the order nor the position knows of it."""
    brought = []
    numbers = data.Loader(iter([{"number": n} for n in range(7, 12)]), 7)
    batches = data.ahead(numbers, lambda batch: brought.append(batch["number"]) or batch)
    for number in (7, 8, 9):
        assert next(batches) == {"number": number}
        assert (batches.position, brought) == (number + 1, [*range(7, number + 2)])


@pytest.mark.parametrize(("count", "size"), [(24, 10), (24, 8), (13, 16)])
def test_every_epoch_is_another_permutation_of_all_examples(count, size):
    labels = take(numbered(count), 60, batch_size=size)["label"].reshape(-1)
    epochs = labels[: len(labels) // count * count].reshape(-1, count)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(count), epochs.shape))
    assert len(np.unique(epochs, axis=0)) == len(epochs)


def test_first_places_are_spread_evenly():
    firsts = take(numbered(4), 4000, batch_size=4)["label"][:, 0]
    assert ((np.bincount(firsts, minlength=4) - 1000) ** 2 / 1000).sum() < 16.3  # chi-squared, 3 degrees, p = 0.001


def test_seeds_choose_the_order():
    assert not equal(take(SOURCES["digits"], 1), take(SOURCES["digits"], 1, seed=2))
    assert not equal(take(SOURCES["checker"], 1), take(SOURCES["checker"], 1, seed=2))


def test_flips_are_half_of_the_draws_and_change_from_epoch_to_epoch():
    epochs = 200
    batch = take(SOURCES["flipped"], epochs, batch_size=60)
    mirrored = batch["x1"][:, :, 0, 0, 0] == -1  # the number moved to the right pixel
    by_image = np.take_along_axis(mirrored, np.argsort(batch["label"], axis=1), axis=1)[:, 1:]  # image 0 is black
    np.testing.assert_allclose(by_image.mean(), 0.5, atol=2 / np.sqrt(by_image.size))
    assert (by_image.mean(axis=0) > 0.3).all() and (by_image.mean(axis=0) < 0.7).all()
    unflipped = np.where(mirrored, batch["x1"][:, :, 0, 1, 0], batch["x1"][:, :, 0, 0, 0])
    np.testing.assert_allclose((unflipped + 1) * 127.5, batch["label"], atol=1e-4)


def test_position_counts_global_batches():
    loader = data.loader(SOURCES["checker"], batch_size=8, seed=0, process_index=1, process_count=4, position=10**9)
    next(loader)
    assert loader.position == 10**9 + 1


@pytest.mark.parametrize("options", [{"process_count": 3}, {"process_count": 2, "process_index": 2}, {"batch_size": 0}])
def test_a_batch_that_cannot_be_shared_is_refused(options):
    with pytest.raises(UsageError, match=r"batch size (16|0) cannot be shared"):
        take(SOURCES["checker"], 1, **options)


def test_errors_of_a_source_arrive_as_they_are():
    class Broken:
        def __len__(self):
            return 4

        def batch(self, indices, seed=0, epoch=0):
            raise UsageError("picture.png is a broken image")

    with pytest.raises(UsageError) as error:
        take(Broken(), 1)
    assert str(error.value) == "picture.png is a broken image"
