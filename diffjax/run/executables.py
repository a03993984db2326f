"""What tracing gives, kept from one process to the next: shapes, and compiled functions.

JAX's persistent compilation cache finds a program by its text, which each process must trace and
lower first. What is kept here is found by what the program is made from: the code and options of a
workdir, the flags, the shapes of the arguments, the device. It is used again only where no file of
a module that was loaded when it was made has changed since. Where one has, the program is traced,
and if its text is as before, still not compiled.
"""

import functools
import hashlib
import os
import pickle
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib
from jax.sharding import Mesh

from diffjax import parallel
from diffjax.atomic import atomic_write
from diffjax.experiment import Model
from diffjax.run.workdir import RECORD, read_record
from diffjax.types import PyTree

STARTED = time.time_ns()


class Kept(NamedTuple):
    """Where the shapes and the compiled functions of one model are.

    Attributes:
      folder: of pickles and executables, so that others must not be able to write there.
      machine: a digest of the devices and of all settings of JAX and XLA.
      model: a digest of what the model is made from, beside the modules that are loaded.
    """

    folder: Path
    machine: str
    model: str


def of_workdir(workdir: Path, model: Model) -> Kept | None:
    """Those of a workdir, in the folder of JAX's persistent compilation cache.

    Args:
      workdir: of train.py.
      model: of the workdir, with what flags have added to it.

    Returns:
      Their place; None where nothing is kept, where many processes must agree, or for a model
      with frozen networks, whose code is not looked at.
    """
    c = jax.config
    folder = c.jax_compilation_cache_dir if c.jax_enable_compilation_cache else None
    if not folder or model.frozen or jax.process_count() > 1:
        return None
    modules = (read_record(workdir) or {}).get("modules", [])
    names = [RECORD, "config.py", *(f"{name.replace('.', '/')}.py" for name in modules)]
    files = [(workdir / name).read_bytes() for name in names]
    # A config may have read numbers from other files: those of the time it was trained.
    made = workdir.resolve(), (workdir / RECORD).stat().st_mtime_ns
    return Kept(Path(folder), _digest(*_surroundings()), _digest(*files, made))


def abstract(kept: Kept | None, init: Callable[..., PyTree], mesh: Mesh) -> PyTree:
    """`parallel.abstract(init, mesh, key)`, traced once.

    Args:
      kept: from `of_workdir`; None traces.
      init: of the model.
      mesh: from `parallel.make_mesh`.
    """
    trace = functools.partial(jax.eval_shape, init, jax.random.key(0))
    return parallel.placed_like(_recalled(kept, ["init"], trace) if kept else trace(), mesh)


def compiled(
    kept: Kept | None,
    name: Sequence[Any],
    arguments: PyTree,
    mesh: Mesh,
    lower: Callable[[], Any],
) -> Callable:
    """lower().compile(), or what it gave to an earlier process.

    Args:
      kept: from `of_workdir`; None compiles.
      name: of the function: all that it is made from but the model.
      arguments: that it will be called with.
      mesh: whose devices it runs on.
      lower: () -> `jax.stages.Lowered`.

    Returns:
      The compiled function.
    """
    if kept is None or not all(map(_says_all, name)):
        return lower().compile()
    lowered = functools.cache(lower)
    leaves, tree = jax.tree.flatten(arguments)
    shapes = [(leaf.shape, leaf.dtype, getattr(leaf, "sharding", None)) for leaf in leaves]
    program = _recalled(kept, [*name, shapes, tree, mesh], lambda: _digest(lowered().as_text()))
    path = kept.folder / f"diffjax-program-{_digest(kept.machine, program)}"
    from jax.experimental import serialize_executable as s

    try:
        found = pickle.loads(path.read_bytes())
        if found is None:  # it cannot be kept, and JAX's own cache has it
            return lowered().compile()
        return s.deserialize_and_load(*found, execution_devices=[*mesh.devices.flat])
    except Exception:  # there is none, or it is damaged
        with _without_persistent_cache():  # an executable that is read from it cannot be written
            made = lowered().compile()
        if not _write(path, lambda: s.serialize(made)):
            _write(path, lambda: None)
        return made


@contextmanager
def _without_persistent_cache() -> Iterator[None]:
    """JAX's own persistent compilation cache is neither read nor written."""
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


def _recalled(kept: Kept, name: Sequence[Any], make: Callable[[], Any]) -> Any:
    """What an earlier process made, if it would be the same, or else make()."""
    path = kept.folder / f"diffjax-{_digest(kept.machine, kept.model, *name)}"
    try:
        stamps, value = pickle.loads(path.read_bytes())
        if all(_stamp(file) == stamp for file, stamp in stamps.items()):
            return value
    except Exception:  # there is none, or it is damaged, or a file is gone
        pass
    made, stamps = make(), _loaded_files()
    if all(written < STARTED for written, _ in stamps.values()):  # it is what was loaded
        _write(path, lambda: (stamps, made))
    return made


def _write(path: Path, value: Callable[[], Any]) -> bool:
    """Write a pickle of value(), and say whether it could be."""
    try:
        content = pickle.dumps(value())
        with atomic_write(path) as file:
            file.write(content)
    except Exception:  # a full disk, or a backend whose executables cannot be written
        return False
    return True


def _says_all(part: Any) -> bool:
    """Whether `_digest` tells a part of a name from all others: no function of captured values.

    A decorated function may have captured what it wraps, for that is named with it.
    """
    if not callable(part):
        return " at 0x" not in repr(part)
    if not hasattr(part, "__code__"):
        return False
    captured, wraps = part.__closure__ or (), getattr(part, "__wrapped__", None)
    return all(cell.cell_contents is wraps for cell in captured) and (not wraps or _says_all(wraps))


def _digest(*parts: Any) -> str:
    """A hash of bytes, of functions by where their code is, and of others by how they print."""
    found = hashlib.sha256()
    for part in parts:
        found.update((part if isinstance(part, bytes) else repr(_named(part)).encode()) + b"\0")
    return found.hexdigest()[:32]


def _named(part: Any) -> Any:
    """A function by where its code is and what it wraps, anything else itself."""
    if not hasattr(part, "__code__"):
        return part
    where = part.__module__, part.__qualname__, part.__code__.co_firstlineno
    return *where, _named(getattr(part, "__wrapped__", None))


def _surroundings() -> list[Any]:
    """What a compiled function depends on beside its program: versions, devices, settings."""
    flags = {k: v for k, v in os.environ.items() if k.startswith(("JAX_", "XLA_", "LIBTPU_"))}
    settings = {k: v for k, v in jax.config.values.items() if "cache" not in k}
    devices = [(device.platform, device.device_kind, device.id) for device in jax.devices()]
    versions = (sys.version, jax.__version__, jaxlib.__version__, platform.machine())
    return [sorted(flags.items()), sorted(settings.items()), devices, versions, _processor()]


def _processor() -> list[str]:
    """The kind of CPU, whose instructions a program for it uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [platform.processor()]
    return sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})


def _loaded_files() -> dict[str, tuple[int, int]]:
    """The stamp of the file of every module that is loaded."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {file: _stamp(file) for file in files if file and Path(file).is_file()}


@functools.cache
def _stamp(file: str) -> tuple[int, int]:
    """When a file was written, in nanoseconds, and how long it is."""
    found = os.stat(file)
    return found.st_mtime_ns, found.st_size
