"""Eight virtual CPU devices, strict shapes and a cache of compiled programs for every test."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
# Most of a test's time is compilation, and most of that LLVM's optimization of programs that run for a moment.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# A test has a core, beside others: threads that wait for their share of a small matrix take it from them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest
from absl import flags


def pytest_configure(config: pytest.Config) -> None:
    """Sets jax up before a test module is imported; absl's flags count as parsed, as under app.run."""
    config.addinivalue_line("markers", "float64: arrays are float64 by default within this test")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", str(config.rootpath / ".jax_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def float64():
    """Arrays are float64 by default within the test; also by the marker of this name."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _float64_where_marked(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("float64"):
        request.getfixturevalue("float64")


@pytest.fixture
def key(_float64_where_marked) -> jax.Array:
    """A typed key, the same in every test."""
    return jax.random.key(0)
