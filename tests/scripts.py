"""Running train.py and sample.py: in this process for speed, or in one that can be killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffjax.run import start as cli

ROOT = Path(__file__).parent.parent
TINY = ("--channels", "8", "--multipliers", "1", "--batch-size", "8", "--sample-every", "0")


def run(monkeypatch, capsys, script, *arguments):
    """Exit code, stdout and stderr of a script, called in this process."""
    sys.path.insert(0, str(ROOT))
    try:
        module = __import__(script)
    finally:
        sys.path.pop(0)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
    try:
        cli.run(module.main)
        code = 0
    except SystemExit as exit:
        code = exit.code
        if isinstance(code, str):  # sys.exit with a message, as the interpreter treats it
            print(code, file=sys.stderr)
            code = 1
    out, err = capsys.readouterr()
    return code, out, err


def start(script, *arguments, devices=1, **options):
    """The script as a process of its own, with so many virtual devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    count = "--xla_force_host_platform_device_count"
    flags = [f for f in flags.split() if not f.startswith(count)] + [f"{count}={devices}"]
    return subprocess.Popen(
        [sys.executable, str(ROOT / f"{script}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"},
        **options,
    )


def saved(workdir, step):
    """The state of a checkpoint as Orbax restores it, in dicts."""
    import orbax.checkpoint as ocp

    from diffjax import checkpoint

    manager = checkpoint.reader(workdir / "checkpoints")
    args = ocp.args.Composite(state=ocp.args.StandardRestore())
    state = manager.restore(step, args=args)["state"]
    manager.close()
    return state


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A workdir of a few real steps."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    process = start("train", "--workdir", workdir, *TINY, "--steps", "6", "--log-every", "4")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return workdir, out
