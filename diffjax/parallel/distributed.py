"""Many processes as one program: joining, stopping together, and what to say when one dies."""

import atexit
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np

from diffjax.errors import InputError, sentence
from diffjax.training import stop_on_signals

WATCH = "import sys; sys.stdin.read() or print(sys.argv[1], file=sys.stderr)"


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 60,
) -> None:
    """Join the other processes of the job; call it before anything touches a device.

    JAX ends a process whose peers have died or fallen silent for `timeout` seconds, by an
    abort that no Python code sees, unless an exchange of data failed first; a small process
    watches for both and says what to do.

    Args:
      coordinator: HOST:PORT of process 0; None where a TPU pod or Slurm tells.
      num_processes: how many there are; None likewise.
      process_id: which one this is, from 0; None likewise.
      timeout: seconds of silence after which a peer counts as dead.

    Raises:
      InputError: only some of the three were given, or the processes could not meet.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise InputError(
            "--coordinator, --num-processes and --process-id go together; give all three, or "
            "none on a TPU pod or under Slurm."
        )
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=timeout,
            shutdown_timeout_seconds=timeout,
        )
    except Exception as error:
        raise InputError(
            f"the processes could not meet ({sentence(error)}); on a TPU pod or under Slurm give "
            "--distributed alone, elsewhere also --coordinator HOST:PORT, --num-processes and "
            "--process-id."
        ) from error
    _say_if_aborted(
        f"process {jax.process_index()} of {jax.process_count()} was ended: another process died "
        f"or did not answer for {timeout} s. Start all of them again with the same command; the "
        "run resumes from its last checkpoint."
    )


def _say_if_aborted(text: str) -> None:
    """Have the text printed if this process is aborted, or ends by an error of a device."""
    watcher = subprocess.Popen([sys.executable, "-c", WATCH, text], stdin=subprocess.PIPE)

    def close():
        lost = isinstance(getattr(sys, "last_value", None), jax.errors.JaxRuntimeError)
        watcher.communicate(b"" if lost else b"ended well")

    atexit.register(close)


def is_main() -> bool:
    """Whether this process is the one that writes pictures and logs, and speaks."""
    return jax.process_index() == 0


def on_main(action: Callable[[], None], refused: str) -> None:
    """Do something on the main process; where it refuses, every process does.

    Args:
      action: what the main process does.
      refused: what the others say, such as "could not take the workdir".

    Raises:
      InputError: of the action; the main process raises any other error of it too.
    """
    problem = None
    try:
        if is_main():
            action()
    except Exception as error:  # whatever it is, the others must not wait for this process
        problem = error
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import process_allgather

        fine = process_allgather(np.asarray(problem is None)).all()
        if problem is None and not fine:
            problem = InputError(f"the main process {refused}; its own message says why.")
    if problem is not None:
        raise problem


def wait_for_all(name: str) -> None:
    """Wait until every process is here, so that files of one can be read by all.

    Args:
      name: of the place, the same in all.
    """
    if jax.process_count() > 1:
        from jax.experimental.multihost_utils import sync_global_devices

        sync_global_devices(name)


@contextmanager
def stop_together() -> Iterator:
    """`training.stop_on_signals` for any number of processes: all stop after the same step.

    Of many processes a SIGTERM to one is enough: JAX's coordination service tells the others.

    Yields:
      () -> bool, for `training.fit`; every process calls it once for each step.
    """
    if jax.process_count() == 1:
        with stop_on_signals() as stop:
            yield stop
        return
    from jax.experimental.multihost_utils import reached_preemption_sync_point

    calls = itertools.count()
    yield lambda: reached_preemption_sync_point(next(calls))
