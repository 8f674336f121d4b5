"""When a process looks for others, and what it then tells jax."""

import jax
import pytest

from flowmaps import processes
from flowmaps.errors import UsageError


@pytest.fixture
def joined(monkeypatch):
    """The calls of jax.distributed.initialize, without its time, which is longer than ours."""
    calls = []

    def initialize(*, initialization_timeout, **given):
        assert initialization_timeout > processes.PATIENCE
        calls.append(given)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name in (*processes.NEEDED, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.mark.parametrize(
    "variables",
    [{}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, {"TPU_WORKER_HOSTNAMES": "a"}],
)
def test_alone_it_joins_nobody(joined, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes.start()
    processes.start(False)
    assert joined == []


@pytest.mark.parametrize(
    "variables", [{"SLURM_STEP_NUM_TASKS": "8"}, {"OMPI_COMM_WORLD_SIZE": "2"}, {"TPU_WORKER_HOSTNAMES": "a,b"}]
)
def test_a_cluster_is_left_to_jax(joined, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    processes.start(False)
    assert joined == []
    processes.start()
    assert joined == [{}]


def test_what_the_variables_say_is_passed_on(joined, monkeypatch):
    for name, value in zip(processes.NEEDED, ("host:1234", "3", "2"), strict=True):
        monkeypatch.setenv(name, value)
    processes.start()
    assert joined == [{"coordinator_address": "host:1234", "num_processes": 3, "process_id": 2}]


def test_the_flag_joins_where_no_variable_speaks(joined):
    processes.start(True)
    assert joined == [{}]


def test_a_share_of_a_scripts_work():
    assert processes.share("0/1") == (0, 1) and processes.share("3/16") == (3, 16)
    for text in ("4/4", "1", "-1/2", "a/b", "0/0"):
        with pytest.raises(UsageError, match=f"--shard='{text}' is not I/N with I from 0 to N - 1"):
            processes.share(text)
