"""The autoencoder is Diffusers', by golden values of theirs, and a file of other weights is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sd_autoencoder

from flowmaps import autoencoders, networks
from flowmaps.errors import MissingError, UsageError
from flowmaps.networks.autoencoder import Autoencoder


@pytest.fixture(scope="module")
def golden():
    return sd_autoencoder.golden()


@pytest.fixture
def file(tmp_path):
    return sd_autoencoder.save(tmp_path / "vae.safetensors")


def outputs(pretrained, x):
    """Mean, std and the decoded mean."""

    @jax.jit
    def run(params, x):
        mean, std = pretrained.module.apply({"params": params}, x, method="encode")
        return mean, std, pretrained.module.apply({"params": params}, mean, method="decode")

    return run(pretrained.params, x)


@pytest.mark.parametrize("older", [False, True])
def test_it_is_diffusers_autoencoder(golden, tmp_path, older):
    pretrained = autoencoders.read(sd_autoencoder.save(tmp_path / "vae.safetensors", older=older))
    assert (pretrained.module.channels, pretrained.module.factor) == (sd_autoencoder.CHANNELS, 4)
    mean, std, decoded = outputs(pretrained, golden["images"])
    np.testing.assert_allclose(mean, golden["mean"], atol=1e-4)
    np.testing.assert_allclose(std, golden["std"], rtol=1e-4)
    np.testing.assert_allclose(decoded, golden["decoded"], atol=1e-4)


def test_it_is_the_diffusers_that_is_installed(tmp_path):
    pytest.importorskip("diffusers")
    shapes = {name: list(array.shape) for name, array in sd_autoencoder.diffusers_model().state_dict().items()}
    arrays, x = sd_autoencoder.weights(shapes), sd_autoencoder.images()
    ours = outputs(autoencoders.read(sd_autoencoder.save(tmp_path / "vae.safetensors", arrays)), x)
    for one, other in zip(ours, sd_autoencoder.diffusers_outputs(arrays, x), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_its_defaults_are_stable_diffusions():
    """83,653,863 parameters, and for an image of 256 x 256 latents of 32 x 32 x 4."""
    module = Autoencoder()
    x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    assert sum(array.size for array in jax.tree.leaves(params)) == 83_653_863
    mean, std = jax.eval_shape(lambda p, x: module.apply({"params": p}, x, method="encode"), params, x)
    assert mean.shape == std.shape == (1, 32, 32, 4)


@pytest.mark.parametrize(("log_variance", "std"), [(0.5, np.exp(0.25)), (90.0, np.exp(10)), (-90.0, np.exp(-15))])
def test_the_log_variance_is_clipped(golden, file, log_variance, std):
    pretrained, latents = autoencoders.read(file), golden["mean"].shape[-1]
    quant = pretrained.params["quant_conv"]
    quant["kernel"][..., latents:], quant["bias"][latents:] = 0, log_variance
    _, found, _ = outputs(pretrained, golden["images"])
    np.testing.assert_allclose(found, std, rtol=1e-6)


def test_half_precision_is_read_as_float32(tmp_path, golden):
    arrays = sd_autoencoder.weights(golden["shapes"])
    path = sd_autoencoder.save(tmp_path / "half.safetensors", {n: a.astype(np.float16) for n, a in arrays.items()})
    params = autoencoders.read(path).params
    assert {array.dtype for array in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    kernel = arrays["decoder.conv_out.weight"].astype(np.float16).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["decoder"]["conv_out"]["kernel"], kernel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.mid_block.attentions.0.to_k.bias": None}, r"to_k\.bias is absent and should be \[64\]"),
        ({"decoder.conv_out.weight": np.zeros((4, 32, 3, 3))}, r"is \[4, 32, 3, 3\] and should be \[3, 32, 3, 3\]"),
        ({"decoder.extra.weight": np.zeros(3)}, r"decoder\.extra\.weight is \[3\] and should be absent"),
        ({"encoder.conv_in.weight": None}, r"encoder\.conv_in\.weight is absent and should be \[32, 3, 3, 3\]"),
    ],
)
def test_a_wrong_file_is_told_by_the_first_wrong_array(tmp_path, golden, change, message):
    arrays = sd_autoencoder.weights(golden["shapes"]) | change
    arrays = {name: array for name, array in arrays.items() if array is not None}
    path = sd_autoencoder.save(tmp_path / "vae.safetensors", arrays)
    with pytest.raises(UsageError, match=message) as error:
        autoencoders.describe(path)
    assert path in str(error.value) and "\n" not in str(error.value)


def test_no_file_and_no_safetensors_are_told(tmp_path, file):
    with pytest.raises(MissingError, match=r"there is no autoencoder .*: fetch diffusion_pytorch_model\.safetensors"):
        autoencoders.read(tmp_path / "none.safetensors")
    (tmp_path / "page.safetensors").write_text("<html>quota exceeded</html>")
    with pytest.raises(UsageError, match=r"page\.safetensors is not a readable \.safetensors file"):
        autoencoders.read(tmp_path / "page.safetensors")
    whole = (tmp_path / "vae.safetensors").read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"short\.safetensors is not a readable \.safetensors file"):
        autoencoders.read(tmp_path / "short.safetensors")


def test_it_is_no_velocity():
    assert "autoencoder" not in networks.names()
    with pytest.raises(UsageError, match="unknown network 'autoencoder'"):
        networks.load("autoencoder")
