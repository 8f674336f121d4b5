"""What the README shows works."""

from pathlib import Path
from types import ModuleType

import jax.numpy as jnp
import numpy as np
from laws import COUNT, LAWS, LINEAR, gradients

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_method_that_the_readme_writes_rests_at_the_exact_map():
    module = ModuleType("foo")
    exec(README.split("```python\n")[1].split("```")[0], module.__dict__)
    oracle = LAWS["gaussian"]()
    gradient = gradients(module.make(interpolant=LINEAR, total_steps=10), oracle.average_velocity, oracle.sample)
    rest = gradient(jnp.zeros(COUNT), 64)
    assert np.all(np.abs(rest.mean) <= 4 * rest.error + 1e-6)
    assert all(gradient(0.1 * jnp.eye(COUNT)[k], 4).mean[k] > 0 for k in range(COUNT))


def test_every_method_has_a_row_in_the_readme():
    from flowmaps import methods

    assert all(f"| `{name}`" in README for name in methods.names())


def test_every_network_of_a_velocity_has_a_row_in_the_readme():
    from flowmaps import networks

    velocities = [name for name in networks.names() if hasattr(networks.load(name), "without_end_time")]
    assert len(velocities) == 5 and all(f"| `{name}`" in README for name in velocities)
