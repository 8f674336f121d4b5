"""The processes of a run: one on a laptop, one a host or one a device on a cluster."""

import os
import re
import sys
import threading
import time

import jax
from absl import logging

from flowmaps.errors import UsageError

NEEDED = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PATIENCE = 300
"""Seconds that a process waits for the others, by default."""
LINGER = 3
"""Seconds that the first process, with which the others lose their coordinator, leaves them to say why they end."""
FAILED = 4
"""The exit code of a process that cannot go on because another one, or what joins them, failed."""


def start(distributed: bool | None = None, patience: float = PATIENCE) -> None:
    """Joins this process to the others of its run; to be called before anything computes.

    With `distributed` None it does so where there are others: under srun and mpirun with several tasks, on a TPU pod
    that lists its hosts, and where JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID are set.
    True joins also where only jax itself can tell the cluster (Kubernetes, TPU pods by their metadata); False never.
    Where they have not all come within `patience` seconds, it says so and the program ends with the code of a failure.

    Raises UsageError where `distributed` is True and jax finds no cluster.
    """
    if not (_others() if distributed is None else distributed):
        return
    given, where = {}, "by the cluster"
    if all(name in os.environ for name in NEEDED):
        address, count, index = (os.environ[name] for name in NEEDED)
        given = {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}
        where = f"at {address}, this one as process {index} of {count}"
    logging.info("waiting up to %g s for the other processes of this run, %s", patience, where)
    alarm = threading.Timer(patience, _give_up, (where, patience))
    alarm.daemon = True
    alarm.start()
    try:
        # jax itself ends the program where its time is over, without a line that a user could read.
        jax.distributed.initialize(**given, initialization_timeout=int(patience) + 60)
    except ValueError as error:
        raise UsageError(f"--distributed: {error} Set {', '.join(NEEDED)} or leave the flag out") from error
    finally:
        alarm.cancel()


def leave(code: int) -> None:
    """Ends the program with an exit code. Of several processes this one ends at once: at a usual end jax waits for the
    others, which may wait for this one within a computation."""
    if not jax.distributed.is_initialized():
        sys.exit(code)
    if jax.process_index() == 0:
        time.sleep(LINGER)
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _give_up(where: str, patience: float) -> None:
    sys.stderr.write(
        f"the processes of this run did not all come within {patience:g} s, {where}: start the command on every host "
        "(on a TPU pod with --worker=all), let its port through, or give a longer --distributed_timeout\n"
    )
    sys.stderr.flush()
    os._exit(FAILED)


def share(text: str) -> tuple[int, int]:
    """Which part of a script's work is this process's, "1/4" -> (1, 4): index and number of processes that know nothing
    of each other. Raises UsageError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise UsageError(f"--shard={text!r} is not I/N with I from 0 to N - 1, such as 0/4")
    return int(found[1]), int(found[2])


def _others() -> bool:
    """Whether the usual variables speak of more than one process."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", NEEDED[1]))
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return any(int(count) > 1 for count in counts) or len(hosts) > 1
