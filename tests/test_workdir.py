"""Whose workdir it is: what makes another run, what does not, and what is removed."""

import json
import subprocess

import pytest
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import base
from flowmaps import trained, workdir
from flowmaps.errors import UsageError


def make_config(**changed) -> ConfigDict:
    config = ConfigDict({"seed": 0, "init_from": placeholder(str), "compilation_cache": placeholder(str)})
    config.method = {"name": "lsd", "fraction": 0.75}
    config.train = {"steps": 10, "ema": (0.999,), "batch_size": 8}
    config.eval = {"steps": (1, 2)}
    config.players = {}
    config.data = {"dir": "/data", "crop": 0}
    config.update_from_flattened_dict(changed)
    return config


def test_the_same_config_goes_on(tmp_path):
    workdir.check(make_config(), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    workdir.begin(make_config(), tmp_path / "new")
    workdir.check(make_config(), tmp_path / "new")
    saved = json.loads((tmp_path / "new" / "config.json").read_text())
    assert saved["train"] == {"steps": 10, "ema": [0.999], "batch_size": 8}


@pytest.mark.parametrize(
    "field, value",
    [
        ("train.steps", 20),
        ("eval.steps", (4,)),
        ("compilation_cache", "/x"),
        ("data.dir", "/x"),
        ("data.autoencoder", "/x"),
    ],
)
def test_length_evaluation_and_places_are_free(tmp_path, field, value):
    workdir.begin(make_config(), tmp_path)
    workdir.check(make_config(**{field: value}), tmp_path)


def test_how_attention_is_computed_is_free_and_where_a_unet_has_any_is_not(tmp_path):
    networks = {"dit": {"attention": "xla"}, "unet": {"attention": (16,), "attention_form": "xla"}}
    for name, fields in networks.items():
        config = make_config()
        config.network = fields
        workdir.begin(config, tmp_path / name)
        config.network.update({field: "blockwise" for field, value in fields.items() if value == "xla"})
        workdir.check(config, tmp_path / name)
    config.network.attention = (8,)
    with pytest.raises(UsageError, match=r"another config: network\.attention \[16\] -> \[8\];"):
        workdir.check(config, tmp_path / "unet")


@pytest.mark.parametrize(
    "field, value, line",
    [
        ("seed", 1, "seed 0 -> 1"),
        ("method.name", "psd", "method.name lsd -> psd"),
        ("train.ema", (0.9,), "train.ema [0.999] -> [0.9]"),
        ("train.batch_size", 16, "train.batch_size 8 -> 16"),
        ("init_from", "runs/a", "init_from None -> runs/a"),
    ],
)
def test_what_is_learned_is_not_free(tmp_path, field, value, line):
    workdir.begin(make_config(), tmp_path)
    with pytest.raises(UsageError) as error:
        workdir.check(make_config(**{field: value}), tmp_path)
    text = str(error.value)
    assert f"another config: {line}; " in text and "--overwrite" in text and "\n" not in text


def test_an_infinite_value_is_kept_in_strict_json(tmp_path):
    config = make_config(**{"method.fraction": float("inf")})
    workdir.begin(config, tmp_path)
    json.loads((tmp_path / "config.json").read_text(), parse_constant=pytest.fail)
    workdir.check(config, tmp_path)
    with pytest.raises(UsageError, match=r"method.fraction Infinity -> 0.75"):
        workdir.check(make_config(), tmp_path)


def test_a_field_that_is_not_set_may_be_new(tmp_path):
    workdir.begin(make_config(), tmp_path)
    config = make_config()
    config.teacher = placeholder(str)
    workdir.check(config, tmp_path)


def test_a_field_that_only_one_of_them_has_counts(tmp_path):
    workdir.begin(make_config(), tmp_path)
    other = make_config()
    del other.method["fraction"]
    other.players = {"critic": {"rate": 0.1}}
    with pytest.raises(UsageError, match=r"method.fraction 0.75 -> absent, players {} -> absent, players.critic.rate"):
        workdir.check(other, tmp_path)


def test_a_run_from_before_an_option_was_there_is_one_of_its_default(tmp_path):
    """Of a method, a network, a player's network and the critic beside any method; another value is another run."""
    config = base.digits("lsd")
    workdir.begin(config, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for section, option in (("method", "learned_weight"), ("network", "residual")):
        del saved[section][option]
    del saved["adversary"], saved["players"]["critic"]["network"]["depth"]
    del saved["guidance"]["weak"], saved["eval"]["guidance"]
    config.network.residual = False
    (tmp_path / "config.json").write_text(json.dumps(saved))
    workdir.check(config, tmp_path)
    read = trained.read(tmp_path, "teacher.workdir")
    assert (read.method.learned_weight, read.network.residual, read.adversary.weight) == (False, False, 0.0)
    assert (read.guidance.weak, read.eval.guidance) == (None, ())
    config.method.learned_weight = True
    with pytest.raises(UsageError, match=r"of another config: method.learned_weight False -> True; give"):
        workdir.check(config, tmp_path)


def test_overwriting_removes_another_run_and_nothing_else(tmp_path):
    workdir.begin(make_config(), tmp_path)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "notes.txt").write_text("mine")
    workdir.begin(make_config(), tmp_path, overwrite=True)
    assert (tmp_path / "checkpoints" / "5").exists()
    workdir.begin(make_config(seed=1), tmp_path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "environment.json", "notes.txt"]
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1


def test_the_environment_names_versions_devices_and_commit(tmp_path):
    import jax

    workdir.commit.cache_clear()
    workdir.begin(make_config(), tmp_path)
    saved = json.loads((tmp_path / "environment.json").read_text())
    assert saved["versions"]["jax"] == jax.__version__
    assert (saved["platform"], saved["devices"], saved["processes"]) == ("cpu", 8, 1)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    assert saved["commit"] is None or saved["commit"].removesuffix("-dirty") == head
