"""Kill a run with SIGKILL at random moments, restart it each time, compare with one left alone.

    python tests/faults/storm.py --kills 50

Prints a table of the kills and whether the final state is the same bit for bit.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402
from scripts import saved, start  # noqa: E402

CONFIG = str(Path(__file__).with_name("small_run.py"))
STEPS_PER_KILL, EVERY = 120, 20
SHARE_AT_START = 0.15  # of the kills come while the program is still starting


class Kill(NamedTuple):
    """One kill: when it came, what it met, and what the next start said."""

    step: int
    during: str
    resumed: str


def command(workdir, steps, config=(CONFIG,)):
    """The training command of a storm, of a config and its flags."""
    often = ("--checkpoint-every", EVERY, "--log-every", 5, "--sample-every", 0)
    return ("train", *config, "--workdir", workdir, "--steps", steps, *often)


def logged(workdir):
    """Lines of the log so far."""
    path = workdir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def saving(workdir):
    """Whether a checkpoint is being written at this moment."""
    folder = workdir / "checkpoints"
    return folder.is_dir() and any("tmp" in path.name for path in folder.iterdir())


def wait(process, workdir, chance):
    """Until a random moment: seldom of the start, mostly of the training."""
    if chance.random() < SHARE_AT_START:
        time.sleep(chance.uniform(0.5, 6))
        return
    lines = logged(workdir) + chance.randint(1, STEPS_PER_KILL // 6)
    while process.poll() is None and logged(workdir) < lines:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.1))


def final(workdir, steps):
    """The state at the end, as numpy arrays."""
    state = saved(workdir, steps)
    return jax.tree.map(np.asarray, state)


def storm(folder, kills, seed=0, tell=lambda kill: None, config=(CONFIG,)):
    """Run both, and return the kills and whether the final states are identical.

    Args:
      folder: for the two workdirs.
      kills: how many.
      seed: of the moments.
      tell: called with each `Kill`.
      config: and its flags.
    """
    chance, steps = random.Random(seed), STEPS_PER_KILL * (kills + 1)
    alone = start(*command(folder / "alone", steps, config))
    _, err = alone.communicate()
    assert alone.returncode == 0, err
    done, workdir = [], folder / "killed"
    process = start(*command(workdir, steps, config))
    while len(done) < kills:
        wait(process, workdir, chance)
        ended = process.poll()
        assert ended is None, f"ended with {ended}: {process.communicate()[1]}"
        during = "a save" if saving(workdir) else "a step" if logged(workdir) else "the start"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached = 5 * logged(workdir)
        process = start(*command(workdir, steps, config))
        said = next(line for line in process.stdout if "writing to" in line or "resum" in line)
        resumed = said.partition(" at step ")[2].partition(" of ")[0] or "0"
        done.append(Kill(reached, during, resumed))
        tell(done[-1])
    _, err = process.communicate()
    assert process.returncode == 0, err
    pairs = zip(
        *(jax.tree.leaves(final(folder / name, steps)) for name in ("alone", "killed")),
        strict=True,
    )
    same = all(np.array_equal(a, b) for a, b in pairs)
    same &= (
        len({(folder / name / "metrics.jsonl").read_text() for name in ("alone", "killed")}) == 1
    )
    return done, same


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print("| kill | last step logged | during | resumed at |\n|---|---|---|---|")
    rows = []

    def tell(kill):
        rows.append(kill)
        print(f"| {len(rows)} | {kill.step} | {kill.during} | {kill.resumed} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        _, same = storm(Path(folder), asked.kills, asked.seed, tell)
    print(f"\nfinal state and log after {asked.kills} kills identical bit for bit: {same}")
    sys.exit(not same)
