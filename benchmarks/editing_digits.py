"""How well 200 digits that a model has not seen are edited: `python benchmarks/editing_digits.py`.

    python benchmarks/editing_digits.py runs/digits_held_out

Trains the default digits model without the 200 where the workdir is empty (three minutes), and
then edits them, by the commands of docs/control.md where one command can. A support vector machine
trained on the other 1,597 digits judges. Prints a table.

Random fill: the lower half of another digit of the 200. Keeps the stroke: the mean squared
distance of an edit to its own digit over that to another digit of the same class, below 1; and
the share of edits that are nearer to their own digit than the median other one of that class.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from diffjax.evaluation import frechet_distance, moments

ROOT = Path(__file__).parents[1]
HELD = 200
EDITS = (("ddpm_inversion", 1.25, 0.7),)
CONFIG = f'''"""The default digits without {HELD} of them."""
import digits
import numpy as np
from diffjax import data


def rest():
    source = data.digits()
    kept = np.random.default_rng(0).permutation(len(source.examples))[{HELD}:]
    rows = [source.examples[int(i)] for i in kept]
    arrays = {{k: np.stack([row[k] for row in rows]) for k in rows[0]}}
    return data.Source(data.Arrays(**arrays), source.shape, 10)


def get_config():
    """The experiment."""
    return digits.get_config()._replace(source=rest)
'''


def run(*command):
    """Run a command of this checkout, and say which."""
    print("$", "python", *command, flush=True)
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)


def train(workdir):
    """The model of the others."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "configs" / "digits.py", folder)
        config = Path(folder) / "held_out.py"
        config.write_text(CONFIG)
        run("train.py", config, "--workdir", workdir)


def as_pixels(images):
    """Digits of 0 to 16 as bytes."""
    return np.round(images / 16 * 255).astype(np.uint8)[..., None]


def flat(images):
    """Bytes as vectors of 0 to 16."""
    return np.asarray(images, float).reshape(len(images), -1) / 255 * 16


def bicubic(small):
    """Means of 4 x 4 blocks enlarged."""
    large = [Image.fromarray(s).resize((8, 8), Image.Resampling.BICUBIC) for s in small[..., 0]]
    return np.stack([np.asarray(image) for image in large])[..., None]


def main(workdir):
    """Train, edit, judge, print."""
    workdir = Path(workdir).resolve()
    if not (workdir / "checkpoints").is_dir():
        train(workdir)
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    test, rest = order[:HELD], order[HELD:]
    judge = SVC(gamma=0.001).fit(data.data[rest], data.target[rest])
    x, labels = as_pixels(data.images[test]), data.target[test]
    real = moments(data.data[rest])

    def reads(images, wanted):
        return np.mean(judge.predict(flat(images)) == wanted)

    def distance(images):
        return frechet_distance(*real, *moments(flat(images)))

    def row(task, name, images, wanted, note=""):
        accuracy, far = reads(images, wanted), distance(images)
        print(f"| {task} | {name} | {accuracy:.1%} | {far:.0f} | {note} |", flush=True)

    files = Path(tempfile.mkdtemp())
    np.savez(files / "test.npz", samples=x)
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save(files / "lower.png")

    def edit(*flags, source="test.npz"):
        out = files / "out.npz"
        run("-m", "diffjax.edit", workdir, "--init-image", files / source, *flags, "--out", out)
        with np.load(out) as file:
            return file["samples"]

    def fits(results):
        small = results.reshape(HELD, 2, 4, 2, 4, 1).mean((2, 4))
        return f"off the measurement by {np.abs(small - blocks).mean() / 255:.3f}"

    blocks = x.reshape(HELD, 2, 4, 2, 4, 1).mean((2, 4))

    print("| task | how | read as wanted | Frechet distance | |\n|---|---|---|---|---|")
    row("the 200 digits", "themselves", x, labels)
    other = x[np.random.default_rng(1).permutation(HELD)]
    row("lower half", "random fill", np.concatenate([x[:, :4], other[:, 4:]], 1), labels)
    noise = np.random.default_rng(2).integers(0, 256, (HELD, 4, 8, 1), dtype=np.uint8)
    row("lower half", "uniform noise", np.concatenate([x[:, :4], noise], 1), labels)
    for method in ("replacement", "repaint", "ddnm"):
        row("lower half", method, edit("--mask", files / "lower.png", "--method", method), labels)
    enlarged = bicubic(blocks.round().astype(np.uint8))
    row("4x enlarged", "bicubic", enlarged, labels, fits(enlarged))
    for method in ("dps", "ddnm"):
        flags = ("--operator", "super_resolution", "--factor", "4", "--method", method)
        enlarged = edit(*flags)
        row("4x enlarged", method, enlarged, labels, fits(enlarged))
    relabel(workdir, x, labels, row)


def relabel(workdir, x, labels, row):
    """Each digit as the one after it, in one draw of many labels."""
    import jax

    from diffjax import grids, parallel
    from diffjax.editing import methods
    from diffjax.editing.edit import run_edit
    from diffjax.media.image import to_uint8
    from diffjax.run import edits
    from diffjax.run.draw import Loop, make_draw
    from diffjax.run.weights import restore_average
    from diffjax.run.workdir import load_experiment

    experiment = load_experiment(workdir)
    params = restore_average(workdir, experiment, parallel.make_mesh("")).params
    given = edits.Given({"init_image": x / np.float32(127.5) - 1}, before=True)
    model, raw = edits.given_model(experiment.model, given, len(x))
    wanted = ((labels + 1) % 10).astype(np.int32)
    raw |= {"label": wanted, "from_label": labels.astype(np.int32)}
    alike = (labels[:, None] == labels) & ~np.eye(len(x), dtype=bool)
    for name, scale, strength in EDITS:
        method = getattr(methods, name)
        ts = edits.grid_of(grids.trailing(model.schedule, 50), strength, method(model.schedule))
        draw = make_draw(model, method, {}, True, Loop(run_edit, "steps"))
        found, _ = draw.samples(params, {}, jax.random.key(0), ts, raw, len(x), scale)
        found = to_uint8(found)
        between = np.mean((flat(found)[:, None] - flat(x)[None]) ** 2, axis=2)
        others = np.where(alike, between, np.nan)
        ratio = np.diag(between).mean() / np.nanmean(others)
        nearer = np.mean(np.diag(between) < np.nanmedian(others, axis=1))
        note = f"distance ratio {ratio:.2f}, nearer {nearer:.0%}"
        row("the next digit", f"{name}, scale {scale}, strength {strength}", found, wanted, note)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
