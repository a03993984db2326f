"""A plan of a training step whose compilation takes hours, from what the compiler wrote on its way.

    export JAX_PLATFORMS=cpu
    XLA_FLAGS="--xla_dump_to=DUMP --xla_dump_hlo_as_text" python train.py \\
        benchmarks/published_sizes.py --system sdxl --plan v6e:16x16 --mesh fsdp=-1
    python benchmarks/dumped_plan.py DUMP sdxl v6e:16x16 --mesh fsdp=-1

The TPU compiler optimizes the program, gives every array its place in memory, and then writes
machine code. For SDXL the first two take minutes and the third hours, and a plan needs no code: the
first command may be stopped once `*after_buffer_assignment.txt` is there. The row is that of
`--plan` without the bytes of the code itself.
"""

import argparse
import os
import re
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from diffjax import plan
from diffjax.plan.report import HEAD, row, table
from diffjax.run import config

SIZES = Path(__file__).parent / "published_sizes.py"


def dumped(folder):
    """(text of the optimized program, bytes of HBM) of the largest program of a folder."""
    end = ".after_optimizations_after_buffer_assignment.txt"
    file = max(folder.glob(f"*{end}"), key=lambda f: f.stat().st_size)
    said = Path(str(file).replace(end, ".after_optimizations-memory-usage-report.txt"))
    return file.read_text(), int(re.search(r"Total bytes: (\d+)", said.read_text())[1])


def main():
    """Print the row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dump", type=Path)
    parser.add_argument("system", choices=("sdxl", "flux"))
    parser.add_argument("slice", help="such as v6e:16x16")
    parser.add_argument("--mesh", default="fsdp=-1")
    asked = parser.parse_args()
    experiment = config.load(SIZES)(system=asked.system)
    devices, program = plan.devices_of(asked.slice), lambda traced: dumped(asked.dump)
    found = plan.cost(experiment, devices, asked.mesh, program)
    print(table(HEAD, [row(asked.slice, plan.chip_of(asked.slice), found)]))


if __name__ == "__main__":
    main()
