"""How a script begins and ends: the platform, the compilation cache, errors as sentences."""

import gc
import glob
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from diffjax.cpu import keep_freed_memory, xla_flags
from diffjax.errors import InputError, sentence


def choose_platform() -> None:
    """Choose the CPU where libtpu is installed and there is no TPU, and the CPU's fast ways.

    Call it before JAX starts. Without it JAX tries the TPU first, and libtpu complains at length.
    """
    import jaxlib  # here, since a script reads this file before it is ready for an interrupt

    accelerators = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin")
    no_tpu = not glob.glob("/dev/accel*") and not glob.glob("/dev/vfio/[0-9]*")
    alone = no_tpu and not any(importlib.util.find_spec(name) for name in accelerators)
    if importlib.util.find_spec("libtpu") and alone:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    on_a_cpu = alone or os.environ.get("JAX_PLATFORMS") == "cpu"
    if on_a_cpu and "jax" not in sys.modules:  # a script's own process
        keep_freed_memory()
    if flags := xla_flags(os.environ, jaxlib.__version__):
        os.environ["XLA_FLAGS"] = flags


def check_platform() -> None:
    """Refuse a JAX_PLATFORMS that this installation does not have.

    Raises:
      InputError: there is no such device.
    """
    import jax

    try:
        jax.devices()
    except Exception as error:
        raise InputError(
            f"JAX found no device ({sentence(error)}); JAX_PLATFORMS is "
            f"{os.environ.get('JAX_PLATFORMS', 'not set')!r}; try JAX_PLATFORMS=cpu, or none."
        ) from error


def cache_folder() -> Path:
    """Where compiled functions are kept: diffjax/compiled in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffjax" / "compiled"


def keep_compiled(folder: Path | None) -> None:
    """Keep compiled functions in a folder, where the next process finds them.

    Args:
      folder: of JAX's persistent compilation cache; None keeps nothing.
    """
    import jax

    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home is no reason not to run
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def compiled(
    compilation_cache: str = "default",
) -> None:
    """Flags of the compiler.

    Args:
      compilation_cache: folder where compiled functions are kept from one command to the next,
        or "off"; default diffjax/compiled in the user's cache directory. Its files are code: use a
        folder that only you can write to. It can be deleted at any time.
    """
    folders = {"default": cache_folder(), "off": None}
    keep_compiled(folders.get(compilation_cache, Path(compilation_cache)))


def processes(
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 60,
) -> None:
    """Flags of a job of many processes, each started with the same command.

    Args:
      distributed: join the other processes; on a TPU pod or under Slurm this is enough.
      coordinator: HOST:PORT of process 0, elsewhere.
      num_processes: how many processes there are, elsewhere.
      process_id: which one this is, from 0, elsewhere.
      timeout: seconds of silence after which another process counts as dead.
    """


def join_processes(
    distributed: bool,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    timeout: int,
) -> None:
    """Join the other processes, if the flags of `processes` say so.

    Raises:
      InputError: flags that need --distributed, or processes that could not meet.
    """
    from diffjax import parallel

    if distributed:
        parallel.connect(coordinator, num_processes, process_id, timeout)
    elif (coordinator, num_processes, process_id) != (None, None, None):
        raise InputError("--coordinator, --num-processes and --process-id need --distributed.")


def leave(number: int, frame: object) -> None:
    """The handler of an interrupt: say so and exit with 130, at once.

    A KeyboardInterrupt would be lost where Python runs a callback of JAX, such as that of the
    garbage collection; and while JAX compiles or reads in other threads, Python's own way out
    may end in a crash.
    """
    program = sys.argv[0].rsplit("/", 1)[-1]
    os.write(sys.stderr.fileno(), f"\n{program}: interrupted\n".encode())
    os._exit(130)


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Call main with the command line; an `InputError` prints its sentence and exits with 2."""
    signal.signal(signal.SIGINT, leave)
    gc.set_threshold(100_000)  # imports and traces make few cycles
    choose_platform()
    program = sys.argv[0].rsplit("/", 1)[-1]
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
