"""A run's folder: its lock, its copy of the configuration, and the way back to an experiment.

A workdir is code: its config.py runs when it is trained further or sampled.
"""

import ast
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffjax.atomic import write_json
from diffjax.errors import InputError, sentence
from diffjax.experiment import Experiment
from diffjax.run.config import build, load
from diffjax.run.options import read_options, to_json

RECORD = "config.json"


@contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Hold a workdir for one run; the lock goes with the process, however it ends.

    Args:
      workdir: made if it is missing.

    Raises:
      InputError: it cannot be written, or another run holds it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("w")
    except OSError as error:
        raise InputError(f"cannot write to the workdir {workdir}: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"another run is writing to {workdir}; wait for it, or give another --workdir."
            ) from error
        yield


def read_record(workdir: str | Path) -> dict[str, Any] | None:
    """What config.json says; None where there is none.

    Raises:
      InputError: it is damaged.
    """
    path = Path(workdir) / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        return {"fingerprints": {}, **record, "options": dict(record["options"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({sentence(error)}); restore it from a backup, or start again in "
            "a new --workdir."
        ) from error


def write_record(workdir: Path, record: Mapping[str, Any]) -> None:
    """Write config.json whole or not at all."""
    write_json(workdir / RECORD, record)


def save_config(
    workdir: Path, path: str | Path, get_config: Callable, options: dict[str, Any]
) -> None:
    """Write the configuration into a new workdir: config.py, modules beside it, config.json.

    Args:
      workdir: the run's folder.
      path: the configuration file.
      get_config: from `config.load`.
      options: from `config.all_options`.
    """
    stored = {name: to_json(value) for name, value in options.items()}
    for name, file in get_config.modules.items():
        target = workdir / f"{name.replace('.', '/')}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    shutil.copyfile(path, workdir / "config.py")
    modules = sorted(get_config.modules)
    write_record(workdir, {"config": str(path), "options": stored, "modules": modules})


def check_config(
    workdir: Path,
    path: str | Path,
    get_config: Callable,
    options: dict[str, Any],
    allowed: Sequence[str] = (),
) -> list[str]:
    """Compare a workdir's configuration with that of this call, and keep changes that may be.

    More steps may be asked for; `allowed` names other changes.

    Args:
      workdir: with a config.json.
      path: the configuration file.
      get_config: from `config.load`.
      options: from `config.all_options`.
      allowed: names of options that may differ; "code" allows another code of the config.

    Returns:
      A sentence for each change that was kept.

    Raises:
      InputError: something else differs; says what.
    """
    record = read_record(workdir)
    before, now = record["options"], {name: to_json(value) for name, value in options.items()}
    changed = [name for name in sorted(before.keys() | now.keys()) if _differ(name, before, now)]
    longer = isinstance(before.get("steps"), int) and now.get("steps", 0) > before["steps"]
    may = {*allowed, "steps"} if longer else set(allowed)
    unknown = set(allowed) - before.keys() - now.keys() - {"code"}
    if unknown:
        raise InputError(
            f"--allow-changes names options of the config, or code; got {', '.join(unknown)}."
        )
    said = {n: f"{n} was {_shown(before, n)}, now {_shown(now, n)}" for n in changed}
    differ = [text for name, text in said.items() if name not in may]
    other_code = _code(Path(path), get_config.modules) != _kept_code(workdir, record)
    if other_code and "code" not in may:
        differ.append(f"the code of {path} is not that of {workdir / 'config.py'}")
    if differ:
        raise InputError(
            f"{workdir} holds a run with another configuration: {'; '.join(differ)}. Give the "
            "same flags to resume it, another --workdir to start a new run, or "
            f"--allow-changes {' '.join(n for n in changed if n not in may) or 'code'} to insist."
        )
    kept = [text for name, text in said.items() if name in may]
    if kept or other_code:
        fingerprints = record["fingerprints"]
        save_config(workdir, path, get_config, options)
        write_record(workdir, read_record(workdir) | {"fingerprints": fingerprints})
    return kept + ["the config's code changed"] * other_code


def _differ(name: str, before: Mapping, now: Mapping) -> bool:
    return name not in before or name not in now or before[name] != now[name]


def _shown(options: Mapping, name: str) -> str:
    return str(options[name]) if name in options else "not there"


def _code(path: Path, modules: Mapping[str, Path]) -> dict[str, str]:
    """The meaning of a config and of the modules beside it, by name."""
    return {"config": _meaning(path), **{name: _meaning(f) for name, f in modules.items()}}


def _kept_code(workdir: Path, record: Mapping) -> dict[str, str]:
    files = {name: workdir / f"{name.replace('.', '/')}.py" for name in record.get("modules", [])}
    return _code(workdir / "config.py", files)


def _meaning(path: Path) -> str:
    """The code without comments, layout and the module's docstring."""
    tree = ast.parse(path.read_text())
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    return ast.dump(tree)


def check_fingerprints(workdir: Path, fingerprints: Mapping[str, str]) -> None:
    """Keep the fingerprints of a run's frozen networks, or refuse others than it began with.

    Raises:
      InputError: a frozen network is not the one that the run began with.
    """
    record = read_record(workdir)
    kept = record["fingerprints"]
    for name, found in fingerprints.items():
        if kept.get(name, found) != found:
            raise other_network(name, workdir, found, kept[name])
    if kept != {**kept, **fingerprints}:
        write_record(workdir, record | {"fingerprints": {**kept, **fingerprints}})


def other_network(name: str, workdir: Path, found: str, kept: str) -> InputError:
    """What is said of a frozen network with another fingerprint than that of a run's beginning."""
    return InputError(
        f"the frozen network {name!r} is not the one that {workdir} was trained with (fingerprint "
        f"{found}, was {kept}); put the old one back, or train anew in another workdir."
    )


def load_experiment(workdir: str | Path) -> Experiment:
    """The experiment of a workdir, from its own copy of the configuration, whose code runs.

    Raises:
      InputError: the folder is not one that train.py made.
    """
    workdir = Path(workdir)
    record = read_record(workdir)
    if record is None:
        raise InputError(
            f"{workdir} is not a workdir of train.py (it has no config.json); "
            "train one with `python train.py --workdir DIR`."
        )
    get_config = load(workdir / "config.py")
    return build(get_config, read_options(record["options"], get_config))
