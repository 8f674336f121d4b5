"""Speed on an accelerator: what is counted of a step, on a network that is small."""

import jax
import pytest

from benchmarks import step_cost, throughput

SMALL = {"width": 32, "depth": 2, "heads": 2}


@pytest.mark.parametrize("name", throughput.METHODS)
def test_the_share_of_the_peak_is_of_the_floors_operations(name):
    """Those of the passes that the method has to make, of rows without labels, and none of what remat adds."""
    module = throughput.make_network(**SMALL)
    unit = step_cost.unit(module)
    passes = {"flow matching": 3, "MeanFlow": 3 + 0.25 * unit.tangent, "sCT": 3 + unit.tangent}
    passes["LSD"] = 0.75 * 3 + 0.25 * (4 + 3 * unit.tangent)
    expected = passes[name] * unit.evaluation / step_cost.BATCH
    assert throughput.floor(name, module) == pytest.approx(expected)


def test_a_batch_that_does_not_fit_ends_the_search(monkeypatch):
    def measure(name, module, size, peak):
        if size > 100:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return {"batch": size}

    monkeypatch.setattr(throughput, "measure", measure)
    assert throughput.largest("MeanFlow", None, 1.0) == {"batch": 64}


@pytest.mark.long
def test_a_step_is_timed_on_all_devices():
    module = throughput.make_network(**SMALL, patch=16)
    line = throughput.measure("flow matching", module, len(jax.devices()), 1e12, steps=1)
    flops = throughput.floor("flow matching", module)
    assert line["devices"] == len(jax.devices())
    assert line["of_peak"] == pytest.approx(line["images_per_second"] * flops / len(jax.devices()) / 1e12)
