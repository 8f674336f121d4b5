"""The processes of a run: one on a laptop, one a host or one a device on a cluster."""

import os

import jax
from absl import logging

from flowmaps.errors import UsageError

NEEDED = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def start(distributed: bool | None = None) -> None:
    """Joins this process to the others of its run; to be called before anything computes.

    With `distributed` None it does so where there are others: under srun and mpirun with several tasks, on a TPU pod
    that lists its hosts, and where JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID are set.
    True joins also where only jax itself can tell the cluster (Kubernetes, TPU pods by their metadata); False never.

    Raises UsageError where `distributed` is True and jax finds no cluster.
    """
    if not (_others() if distributed is None else distributed):
        return
    given = {}
    if all(name in os.environ for name in NEEDED):
        address, count, index = (os.environ[name] for name in NEEDED)
        given = {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}
    logging.info(
        "waiting for the other processes of this run, which must be started too: %s", given or "by the cluster"
    )
    try:
        jax.distributed.initialize(**given)
    except ValueError as error:
        raise UsageError(f"--distributed: {error} Set {', '.join(NEEDED)} or leave the flag out") from error


def _others() -> bool:
    """Whether the usual variables speak of more than one process."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", NEEDED[1]))
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return any(int(count) > 1 for count in counts) or len(hosts) > 1
