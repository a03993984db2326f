"""How long `sample.py` takes to begin: `python benchmarks/start.py WORKDIR [--torch PYTHON]`.

From the start of the process until the first batch is being drawn, as its progress bar says: with
an empty compilation cache, and then again with what the first process left there. Beside it what
a user of PyTorch waits for before any model is read, `import torch, diffusers`, by the
interpreter that is given. Seconds of wall time and of CPU time, the best of five processes.
Python may keep bytecode, as it does of an installed package.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

ROOT = Path(__file__).parent.parent
TIMES = 5
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def cpu():
    """CPU seconds of all processes that have ended."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def begins(workdir, cache, out):
    """(wall seconds until it draws, CPU seconds of all) of one process."""
    command = [sys.executable, ROOT / "sample.py", workdir, "--num", "10", "--out", out]
    command += ["--compilation-cache", cache]
    before, began, seen, drawing = cpu(), time.perf_counter(), b"", None
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "env": ENVIRONMENT}
    with subprocess.Popen(command, **pipes) as process:
        while piece := process.stderr.read1(4096):
            seen += piece
            if drawing is None and b"sampling" in seen:
                drawing = time.perf_counter() - began
    if process.returncode or drawing is None:
        sys.exit(seen.decode())
    return drawing, cpu() - before


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
        cold = [begins(asked.workdir, Path(folder) / f"cache{i}", out) for i in range(TIMES)]
        rows["sample.py, cold, until it draws"] = cold
        warm = [begins(asked.workdir, Path(folder) / "cache0", out) for _ in range(TIMES)]
        rows["sample.py, warm, until it draws"] = warm
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
