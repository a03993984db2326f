"""Digits in 1, 2, 4 and 8 steps, all methods: `python benchmarks/few_step_digits.py runs`.

Draws 500 digits of each trained workdir in the folder (see ROWS), --draws times, and prints a
table: the Frechet distance in pixel space to the real digits over that between random halves of
them (benchmarks/digits.py), its lowest and highest of the draws, and how often a classifier agrees
with the label. Cost is of all training, in steps of the teacher's own training, counted in
multiplications. Draws are kept in the workdirs and made anew only for newer checkpoints. The
folder digits_tuned is a copy of digits on which `python -m diffjax.tune` was run.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from digits import distance, halves
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from diffjax import conditioning, parallel
from diffjax.experiment import guided, unguided
from diffjax.media import to_uint8
from diffjax.plan.flops import matmul_flops
from diffjax.run import tuned
from diffjax.run.draw import conditions_of
from diffjax.run.state import initial_state, training_loss
from diffjax.run.weights import load_frozen, restore_average
from diffjax.run.workdir import load_experiment, read_record

STEPS = (1, 2, 4, 8)
EVERY = (1, 2, 4, 6, 8, 50)
NUM = 500


class Row(NamedTuple):
    """A method's name, its folder, the steps it is sampled in, and what each step has of its own.

    Attributes:
      staged: whether each number of steps has its own student.
      tuned: whether only numbers of steps are drawn that `diffjax.tune` was run for.
    """

    name: str
    folder: str
    steps: tuple[int, ...] = STEPS
    staged: bool = False
    tuned: bool = False


ROWS = (
    Row("teacher, DDIM", "digits", (*STEPS, 50)),
    Row("teacher, tuned", "digits_tuned", (4, 6, 8), tuned=True),
    Row("consistency distillation", "digits_consistency"),
    Row("latent consistency", "digits_lcm"),
    Row("CTM", "digits_ctm"),
    Row("progressive distillation", "digits_progressive", STEPS, True),
    Row("reflow", "digits_reflow"),
    Row("DMD2", "digits_dmd2", (1,)),
    Row("moment matching", "digits_moment_matching", (4,)),
    Row("sCM", "digits_scm"),
    Row("MeanFlow", "digits_mean_flow"),
    Row("improved MeanFlow", "digits_imf"),
    Row("SoFlow", "digits_soflow"),
    Row("shortcut", "digits_shortcut"),
    Row("ECT", "digits_ect"),
    Row("iCT", "digits_ict"),
    Row("IMM", "digits_imm"),
    Row("drifting", "digits_drifting", (1,)),
    Row("guidance distillation, DDIM", "digits_guidance", (*STEPS, 50)),
)


def checkpoint_of(row, workdir, steps):
    """The checkpoint of a student of so many steps: the newest but for progressive distillation."""
    newest = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    if not row.staged:
        return newest
    return newest - read_record(workdir)["options"]["stage_steps"] * int(np.log2(steps))


def drawer(model):
    """(params, seed, steps) -> 500 images of labels 0, 1, ... 9, 0, ...; one step is compiled."""
    usual, schedule = model.sampling, model.schedule
    sampler = usual.sampler(schedule, **usual.options)
    cond = conditioning.encode(model.conditions, {}, conditions_of(model, NUM))
    null = conditioning.nulls(model.conditions, {})

    @jax.jit
    def step(params, x, t, s, noise, state):
        scale = usual.guidance_scale
        denoiser = unguided(model, params) if scale == 1 else guided(model, params, scale, null, {})
        return sampler.step(noise, lambda x, t: denoiser(x, t, cond), x, t, s, state)

    def draw(params, seed, steps):
        first, rest = jax.random.split(jax.random.key(seed))
        ts = usual.grid(schedule, steps, **usual.grid_options)
        x = model.prior(first, schedule, (NUM, *model.example.shape), 0, ts[0])
        state = sampler.init(x, ts)
        for key, t, s in zip(jax.random.split(rest, steps), ts[:-1], ts[1:], strict=True):
            noise = jax.random.normal(key, (sampler.draws, *x.shape))
            x, state = step(params, x, t, s, noise, state)
        return to_uint8(model.codec.decode({}, x))[..., 0]

    return draw


def draws(row, workdir, asked, number):
    """Steps -> (number, 500, 8, 8) images at the steps of the row that are asked for, kept."""
    found, draw = {}, None
    for steps in (n for n in row.steps if n in asked):
        step = checkpoint_of(row, workdir, steps)
        kept = workdir / f"few_step_{step}_{steps}.npz"
        images = np.load(kept)["samples"] if kept.exists() else ()
        if len(images) < number:
            experiment, mesh = load_experiment(workdir), parallel.make_mesh()
            model, of_steps = tuned.at_steps(experiment.model, workdir, str(steps))
            if row.tuned and of_steps is None:
                continue
            draw = drawer(model) if of_steps or draw is None else draw
            params = restore_average(workdir, experiment, mesh, step).params
            images = np.stack([draw(params, seed, steps) for seed in range(number)])
            np.savez_compressed(kept, samples=images)
        found[steps] = images[:number]
    return found


def flops_of_step(workdir):
    """Multiplications of one training step."""
    experiment = load_experiment(workdir)
    frozen = load_frozen(experiment.frozen, parallel.make_mesh())
    key, like = jax.random.key(0), jax.ShapeDtypeStruct((experiment.batch_size,), jnp.int32)
    state = jax.eval_shape(partial(initial_state, experiment), key, frozen)
    x = jax.ShapeDtypeStruct((*like.shape, *experiment.model.example.shape), jnp.float32)
    gradient = jax.grad(training_loss(experiment), has_aux=True)
    given = (state.params, key, {"x": x, "label": like}, frozen, state.context)
    run = lambda *arrays: gradient(*arrays[:-1], **arrays[-1])  # noqa: E731
    return matmul_flops(jax.make_jaxpr(run)(*given).jaxpr)


def measured(samples, judge, real, reference):
    """Mean, lowest and highest ratio of distances of the draws, and the share of agreement."""
    labels = np.arange(NUM) % 10
    pixels = samples / 255 * 16
    ratios = [distance(images, real.images) / reference for images in pixels]
    agree = np.mean([judge.predict(p.reshape(NUM, -1)) == labels for p in pixels])
    return np.mean(ratios), min(ratios), max(ratios), agree


def picture(rows, path):
    """Rows of methods, columns of steps; each cell ten digits of the same noise."""
    scale, left, top, gap = 3, 150, 16, 12
    wide, high = 10 * 9 * scale, 8 * scale
    size = (left + len(STEPS) * (wide + gap), top + len(rows) * (high + 4))
    sheet = Image.new("L", size, 255)
    draw = ImageDraw.Draw(sheet)
    for j, steps in enumerate(STEPS):
        text = f"{steps} step" + "s" * (steps > 1)
        draw.text((left + j * (wide + gap), 2), text, fill=0)
    for i, (name, cells) in enumerate(rows):
        draw.text((4, top + i * (high + 4) + 2), name, fill=0)
        for j, steps in enumerate(STEPS):
            if steps in cells:
                digits = np.pad(cells[steps][0, :10], ((0, 0), (0, 0), (0, 1)), constant_values=255)
                strip = np.concatenate([*digits], axis=1)
                image = Image.fromarray(strip).resize((wide, high), Image.Resampling.NEAREST)
                sheet.paste(image, (left + j * (wide + gap), top + i * (high + 4)))
    sheet.resize((size[0] * 2, size[1] * 2), Image.Resampling.NEAREST).save(path)


def main():
    """Print the table and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--only", nargs="*", help="folders")
    parser.add_argument("--steps", type=int, nargs="*", default=EVERY)
    parser.add_argument("--draws", type=int, default=4)
    arguments = parser.parse_args()
    real = load_digits()
    judge, reference = SVC(gamma=0.001).fit(real.data, real.target), halves(real.images)
    rows = [row for row in ROWS if not arguments.only or row.folder in arguments.only]
    rows = [row for row in rows if (arguments.runs / row.folder / "samples.png").exists()]
    teacher, shown = flops_of_step(arguments.runs / "digits"), []
    print("| method | training steps | a step costs | " + " | ".join(map(str, EVERY)) + " |")
    print("|---" * (3 + len(EVERY)) + "|")
    for row in rows:
        workdir = arguments.runs / row.folder
        cells = draws(row, workdir, arguments.steps, arguments.draws)
        if set(cells) & {*STEPS}:
            shown.append((row.name, cells))
        found = {n: measured(samples, judge, real, reference) for n, samples in cells.items()}
        text = [
            f"{found[n][0]:.2f} ({found[n][1]:.2f}-{found[n][2]:.2f}), {found[n][3]:.1%}"
            if n in found
            else ""
            for n in EVERY
        ]
        steps, cost = load_experiment(workdir).steps, flops_of_step(workdir) / teacher
        print(f"| {row.name} | {steps} | {cost:.1f} | " + " | ".join(text) + " |", flush=True)
    if arguments.picture:
        picture(shown, arguments.picture)


if __name__ == "__main__":
    main()
