"""Configuration files: a Python file with `get_config(...) -> Experiment`.

Every keyword of `get_config` is a flag of train.py. A config may import modules beside it; a
workdir keeps them too.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from diffjax.errors import InputError, sentence
from diffjax.experiment import Experiment
from diffjax.run.flags import check_seed


def load(path: str | Path) -> Callable[..., Experiment]:
    """The `get_config` of a configuration file. The file's code runs: load only what you trust.

    Args:
      path: a Python file.

    Returns:
      Its function `get_config`, whose attribute `modules` maps the names of the modules that it
      has imported from its own folder so far to their files.

    Raises:
      InputError: no such file, not a Python file, an error in it, or no `get_config`.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise InputError(
            f"expected a configuration file such as configs/digits.py; {path} is not a Python file "
            "that exists."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module, modules = importlib.util.module_from_spec(spec), {}
    try:
        with _importing_beside(path, modules):
            spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} could not be loaded: {sentence(error)}") from error
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise InputError(f"{path} has no function get_config(...) that returns an Experiment.")

    @wraps(get_config)
    def called(**options):
        with _importing_beside(path, modules):
            return get_config(**options)

    called.modules = modules
    return called


@contextmanager
def _importing_beside(path: Path, modules: dict[str, Path]) -> Iterator[None]:
    """Imports find modules in the file's folder first; those found are added to `modules`.

    They leave `sys.modules` at the end, since the config of another run may have others of the
    same names, and modules from elsewhere that have such a name are hidden until then.
    """
    folder = path.resolve().parent
    names = {file.stem for file in folder.glob("*.py")} & set(sys.modules)
    hidden = {name: sys.modules.pop(name) for name in names}
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).resolve().parent == folder:
                modules[name] = Path(file).resolve()
                del sys.modules[name]
        sys.modules.update(hidden)


def build(get_config: Callable[..., Experiment], options: dict[str, Any]) -> Experiment:
    """Call `get_config`, and turn what can go wrong into a sentence.

    Args:
      get_config: from `load`.
      options: its keywords.

    Returns:
      The experiment.

    Raises:
      InputError: it failed, returned something else, or its numbers cannot train.
    """
    try:
        e = get_config(**options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"get_config failed: {sentence(error)}") from error
    if not isinstance(e, Experiment):
        raise InputError(f"get_config must return an Experiment; got {type(e).__name__}.")
    if e.steps < 1 or e.batch_size < 1:
        raise InputError(
            f"steps and batch size must be at least 1; got {e.steps} and {e.batch_size}."
        )
    if e.accumulate < 1 or e.batch_size % e.accumulate:
        raise InputError(
            f"accumulate must divide the batch size {e.batch_size}; got {e.accumulate}."
        )
    if not e.averages:
        raise InputError("an experiment keeps at least one average; got none.")
    check_seed(e.seed)
    return e


def all_options(get_config: Callable[..., Experiment], given: dict[str, Any]) -> dict[str, Any]:
    """Every keyword of `get_config` with its value: given, or else its default."""
    parameters = inspect.signature(get_config).parameters
    return {name: given.get(name, p.default) for name, p in parameters.items()}
