"""A table and a picture of methods of few steps on one set of data, from trained workdirs.

What `few_step_digits.py` and `few_step_fashion.py` share. Each method is drawn several times, and
its draws are kept in the workdirs and made anew only for newer checkpoints. Cost is of all training
of a step, in steps of the teacher's own training, counted in multiplications.
"""

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffjax import conditioning, parallel, samplers
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


class Row(NamedTuple):
    """A method's name, its folder, the steps it is sampled in, and what each step has of its own.

    Attributes:
      staged: whether each number of steps has its own student.
      tuned: whether only numbers of steps are drawn that `diffjax.tune` was run for.
      sampler: name of a sampler of `diffjax.samplers`; None for the model's own.
    """

    name: str
    folder: str
    steps: tuple[int, ...] = STEPS
    staged: bool = False
    tuned: bool = False
    sampler: str | None = None


class Comparison(NamedTuple):
    """What methods are compared on.

    Attributes:
      rows: the methods; the first is the teacher.
      num: images of a draw, of labels 0, 1, ... 9, 0, ...
      judge: () -> (images of a draw, 0 to 255 -> ratio of distances, share of agreement).
      shown: images of a draw that the picture shows.
      pixel: width of a pixel in it.
      guidance_scale: of all rows; None for that of each model.
    """

    rows: tuple[Row, ...]
    num: int
    judge: Callable[[], Callable]
    shown: range
    pixel: int
    guidance_scale: float | None = None


def checkpoint_of(row, workdir, steps):
    """The checkpoint of a student of so many steps: the newest but for progressive distillation."""
    newest = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    if not row.staged:
        return newest
    return newest - read_record(workdir)["options"]["stage_steps"] * int(np.log2(steps))


def sampling_of(of, row, model):
    """The model's defaults of sampling, with the sampler and the scale of the row."""
    usual = model.sampling
    if row.sampler:
        usual = usual._replace(sampler=getattr(samplers, row.sampler), options={})
    if of.guidance_scale is not None:
        usual = usual._replace(guidance_scale=of.guidance_scale)
    return usual


def drawer(model, usual, num):
    """(params, seed, steps) -> images of labels 0, 1, ... 9, 0, ...; one step is compiled."""
    schedule, sampler = model.schedule, usual.sampler(model.schedule, **usual.options)
    cond = conditioning.encode(model.conditions, {}, conditions_of(model, num))
    null = conditioning.nulls(model.conditions, {})

    @jax.jit
    def step(params, x, t, s, noise, state):
        scale = usual.guidance_scale
        denoiser = unguided(model, params) if scale == 1 else guided(model, params, scale, null, {})
        return sampler.step(noise, lambda x, t: denoiser(x, t, cond), x, t, s, state)

    def draw(params, seed, steps):
        first, rest = jax.random.split(jax.random.key(seed))
        ts = usual.grid(schedule, steps, **usual.grid_options)
        x = model.prior(first, schedule, (num, *model.example.shape), 0, ts[0])
        state = sampler.init(x, ts)
        for key, t, s in zip(jax.random.split(rest, steps), ts[:-1], ts[1:], strict=True):
            noise = jax.random.normal(key, (sampler.draws, *x.shape))
            x, state = step(params, x, t, s, noise, state)
        return to_uint8(model.codec.decode({}, x))[..., 0]

    return draw


def draws(of, row, workdir, asked, number):
    """Steps -> (number, num, H, W) images at the steps of the row that are asked for, kept."""
    found, draw = {}, None
    for steps in (n for n in row.steps if n in asked):
        step = checkpoint_of(row, workdir, steps)
        kept = workdir / f"few_step_{step}_{steps}.npz"
        images = np.load(kept)["samples"][:, : of.num] if kept.exists() else np.empty((0, of.num))
        if len(images) < number or images.shape[1] < of.num:
            experiment, mesh = load_experiment(workdir), parallel.make_mesh()
            model, of_steps = tuned.at_steps(experiment.model, workdir, str(steps))
            if row.tuned and of_steps is None:
                continue
            if of_steps or draw is None:
                draw = drawer(model, sampling_of(of, row, model), of.num)
            params = restore_average(workdir, experiment, mesh, step).params
            images = np.stack([draw(params, seed, steps) for seed in range(number)])
            np.savez_compressed(kept, samples=images)
        found[steps] = images[:number]
    return found


@cache
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


def cell(samples, judge):
    """The lowest and highest ratio of distances of the draws, and the share of agreement."""
    ratios, agree = zip(*[judge(images) for images in samples], strict=True)
    low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    return f"{low}-{high}, {np.mean(agree):.1%}" if len(ratios) > 1 else f"{low}, {agree[0]:.1%}"


def strip(images, pixel):
    """Images side by side, with white between them."""
    apart = np.pad(images, ((0, 0), (0, 0), (0, 1)), constant_values=255)
    image = Image.fromarray(np.concatenate([*apart], axis=1))
    return image.resize((image.width * pixel, image.height * pixel), Image.Resampling.NEAREST)


def picture(rows, path, shown, pixel):
    """Rows of methods, columns of steps; all cells show images of the same noise."""
    strips = {
        (i, j): strip(cells[steps][0, shown], pixel)
        for i, (_, cells) in enumerate(rows)
        for j, steps in enumerate(STEPS)
        if steps in cells
    }
    wide, high = next(iter(strips.values())).size
    left, top, wide, high = 300, 32, wide + 24, high + 8
    sheet = Image.new("L", (left + len(STEPS) * wide, top + len(rows) * high), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for j, steps in enumerate(STEPS):
        draw.text((left + j * wide, 4), f"{steps} step" + "s" * (steps > 1), 0, font)
    for i, (name, _) in enumerate(rows):
        draw.text((8, top + (i + 0.5) * high - 16), name, 0, font)
    for (i, j), image in strips.items():
        sheet.paste(image, (left + j * wide, top + i * high))
    sheet.save(path)


def arguments_of(doc):
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--only", nargs="*", help="folders")
    parser.add_argument("--steps", type=int, nargs="*", default=EVERY)
    parser.add_argument("--draws", type=int, default=4)
    return parser.parse_args()


def main(doc, of):
    """Print the table of a comparison and write its picture."""
    asked = arguments_of(doc)
    judge, shown = of.judge(), []
    rows = [row for row in of.rows if not asked.only or row.folder in asked.only]
    rows = [row for row in rows if (asked.runs / row.folder / "config.json").exists()]
    teacher = flops_of_step(asked.runs / of.rows[0].folder)
    print("| method | training steps | cost of a step | " + " | ".join(map(str, EVERY)) + " |")
    print("|---" * (3 + len(EVERY)) + "|")
    for row in rows:
        workdir = asked.runs / row.folder
        cells = draws(of, row, workdir, asked.steps, asked.draws)
        if set(cells) & {*STEPS}:
            shown.append((row.name, cells))
        text = [cell(cells[n], judge) if n in cells else "" for n in EVERY]
        steps, cost = load_experiment(workdir).steps, flops_of_step(workdir) / teacher
        print(f"| {row.name} | {steps} | {cost:.1f} | " + " | ".join(text) + " |", flush=True)
    if asked.picture:
        picture(shown, asked.picture, np.array(of.shown), of.pixel)
