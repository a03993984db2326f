"""How long `sample.py` takes to begin: `python benchmarks/start.py WORKDIR [--torch PYTHON]`.

From the start of the process until the first batch is being drawn, as its progress bar says: with
an empty compilation cache, and then again with what the first process left there. Beside it what
a user of PyTorch waits for before any model is read, `import torch, diffusers`, by the
interpreter that is given. Seconds of wall time and of CPU time, the best of five processes.
Python may keep bytecode, as it does of an installed package.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

ROOT = Path(__file__).parent.parent
TIMES = 5
TRAINED = {
    "cold": (),
    "warm": (),
    "another seed": ("--seed", "1"),
    "another rate": ("--lr", "1e-3"),
}
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def cpu():
    """CPU seconds of all processes that have ended."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def begins(command, sign):
    """(wall seconds until stderr matches the sign, CPU seconds of all) of one process."""
    before, began, seen, there = cpu(), time.perf_counter(), b"", None
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "env": ENVIRONMENT}
    with subprocess.Popen([sys.executable, *command], **pipes) as process:
        while piece := process.stderr.read1(4096):
            seen += piece
            if there is None and re.search(sign, seen):
                there = time.perf_counter() - began
    if process.returncode or there is None:
        sys.exit(seen.decode())
    return there, cpu() - before


def draws(workdir, cache, out):
    """`begins` of sample.py."""
    flags = [workdir, "--num", "10", "--out", out, "--compilation-cache", cache]
    return begins([ROOT / "sample.py", *flags], b"sampling")


def trains(folder, name, *flags):
    """`begins` of train.py: two steps in a workdir of that name."""
    usual = ["--workdir", folder / name, "--steps", "2", "--sample-every", "0"]
    usual += ["--compilation-cache", folder / "cache"]
    return begins([ROOT / "train.py", *usual, *flags], rb"training: +50%")


def runs(command):
    """(wall seconds, CPU seconds) of a process that ends by itself."""
    before, began = cpu(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    return time.perf_counter() - began, cpu() - before


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", type=Path, help="of train.py, such as runs/digits")
    parser.add_argument("--torch", help="an interpreter that has torch and diffusers")
    asked = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.png"
        cold = [draws(asked.workdir, Path(folder) / f"cache{i}", out) for i in range(TIMES)]
        rows["sample.py, cold, until it draws"] = cold
        warm = [draws(asked.workdir, Path(folder) / "cache0", out) for _ in range(TIMES)]
        rows["sample.py, warm, until it draws"] = warm
        for name, flags in TRAINED.items():
            row = f"train.py, {name}, until its first step"
            rows[row] = [trains(Path(folder), name, *flags)]
    imports = "import jax, flax.linen, optax, orbax.checkpoint"
    rows[f"`{imports}`"] = [runs([sys.executable, "-c", imports]) for _ in range(TIMES)]
    if asked.torch:
        imports = "import torch, diffusers; diffusers.DDIMPipeline, diffusers.UNet2DModel"
        rows[f"`{imports}`"] = [runs([asked.torch, "-c", imports]) for _ in range(TIMES)]
    print("| | wall s | CPU s of the whole process |\n|---|---:|---:|")
    for name, times in rows.items():
        print(f"| {name} | {min(w for w, _ in times):.2f} | {min(c for _, c in times):.2f} |")


if __name__ == "__main__":
    main()
