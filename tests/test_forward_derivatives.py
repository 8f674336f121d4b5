"""Networks of which a part has no forward derivative: refused before the run where the method takes one."""

import jax
import jax.numpy as jnp
import pytest

from configs import base
from flowmaps import data, experiment, methods, networks, train
from flowmaps.errors import UsageError

FUSED = """
import jax
import jax.numpy as jnp
from flax import linen as nn

square = jax.custom_vjp(jnp.square)
square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


class Fused(nn.Module):
    shape: tuple
    num_classes: int

    @nn.compact
    def __call__(self, x, s, t, cond, *, dropout=None):
        return nn.Dense(self.shape[-1])(square(nn.Dense(4)(x)))

    def inputs(self):
        return jnp.zeros((2, *self.shape)), jnp.zeros(2), jnp.ones(2), {}


make = Fused
"""
"""A network one of whose functions has a rule for the backward pass alone, as fused kernels of attention have."""


def fused(tmp_path, method):
    """A config of a method with such a network."""
    path = tmp_path / "fused.py"
    path.write_text(FUSED)
    config = base.get_config()
    config.method = base.part(methods, method)
    config.data = base.part(data, "checker")
    config.network = base.part(networks, str(path))
    config.train.batch_size = 64
    return config


REFUSED = r"^method '\w+' .* forward derivatives \(jax\.jvp\), .* network '.*fused\.py'.*$"


def test_a_network_without_a_forward_derivative_is_refused_where_one_is_taken(tmp_path):
    """In one line, before anything is written. A method that takes none has its use of it."""
    experiment.train_step(experiment.build(fused(tmp_path, "flow_matching")))
    with pytest.raises(UsageError, match=REFUSED):
        train.run(fused(tmp_path, "mean_flow"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("role", ["student", "target"])
def test_a_forward_derivative_that_is_not_there_is_missed_with_a_gradient_and_without(tmp_path, role):
    """jax misses one of stopped parameters where it lowers the program, and not before."""
    exp = experiment.build(fused(tmp_path, "flow_matching"))

    def loss(roles, batch, keys, step):
        x, s = batch["x1"], jnp.zeros(len(keys))
        _, slope = jax.jvp(lambda x: getattr(roles, role)(x, s, s, {}), (x,), (x,))
        value = exp.method.losses["student"](roles, batch, keys, step)
        return value._replace(per_example=value.per_example + slope.mean())

    with pytest.raises(UsageError, match=REFUSED) as caught:
        experiment.train_step(exp._replace(method=exp.method._replace(losses={"student": loss})))
    assert type(caught.value.__cause__) is {"student": NotImplementedError, "target": TypeError}[role]
