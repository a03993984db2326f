"""Draw samples from a trained model: `python sample.py WORKDIR [flags]`.

Or from weights published elsewhere: `python sample.py --pretrained FOLDER [flags]`. With
--init-image, --operator or --method it edits pictures or restores measured ones, as
`python -m diffjax.edit` does, whose --help has those flags. A workdir is code (its config.py runs):
sample only those you trust.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["samplers", "grids", "conditions", "configs"]
EDITS = ("init_image", "to_image", "measurement", "operator", "method", "strength")
"""Flags of `diffjax.edit`, which then takes over."""


def flags(
    num: int = 100,
    steps: int = 50,
    sampler: str = "ddim",
    grid: str = "trailing",
    guidance_scale: float = 1.0,
    corrected: bool = False,
    seed: int = 0,
    batch_size: int = 250,
    step: int | None = None,
    ema: float | None = None,
    out: list[Path] = [],  # noqa: B006
    npz: Path | None = None,
    gif: Path | None = None,
    list: Kind | None = None,
    list_samplers: bool = False,
    mesh: str = "",
):
    """Flags of every draw; what can be asked for, and the options of sampler and grid, come after.

    Args:
      num: number of samples.
      steps: steps of the sampler; an adaptive one chooses its own.
      sampler: name of a sampler; --list samplers shows them all.
      grid: name of a grid of times; --list grids shows them all.
      guidance_scale: 1 is no guidance.
      corrected: draw the law p(x | c)^w p(x)^(1 - w) of the guidance scale w, which guidance by
        itself misses, by sequential Monte Carlo with ancestral steps; each batch is one set of
        particles, all of one condition.
      seed: the same seed gives the same samples, whatever the batch size; 0 to 2^32 - 1.
      batch_size: samples per compiled call.
      step: step of the checkpoint; default the newest that is intact.
      ema: length of a power-function average to draw with, such as 0.10; of a run that was
        trained with --ema-lengths.
      out: file to write, by its suffix: a PNG of all samples, sorted by class, an npz of
        arrays, a GIF; may be given several times; default samples.png.
      npz: the same as --out FILE.npz, for `samples` (uint8, NHWC) and `labels`.
      gif: the same as --out FILE.gif, for the denoising of the first samples, 100 at most.
      list: print every sampler with its order, calls, paper and flags, every grid, every
        condition of this model, or every config that ships, and stop.
      list_samplers: the same as --list samplers.
      mesh: sizes of the axes data, fsdp and tensor, such as data=4,fsdp=2; default all
        devices along data. It does not change the samples.
    """


class Request(NamedTuple):
    """What the flags ask for.

    Attributes:
      asked: values of the flags of every draw.
      processes: values of the flags of several processes.
      conditions: values of the conditions' flags, by flag.
      constructor: of the sampler.
      options: its keywords.
      grid: (schedule, steps) -> ts; None for a sampler that chooses its own steps.
    """

    asked: Mapping[str, Any]
    processes: Mapping[str, Any]
    conditions: Mapping[str, Any]
    constructor: Callable
    options: Mapping[str, Any]
    grid: Callable | None


def main(argv):
    """Read the flags, restore the averaged weights, draw, and write the files."""
    from diffjax.run import executables, start, tuned
    from diffjax.run import flags as f
    from diffjax.run.opening import begin, check_opened, open_asked

    argv = [*argv]
    if f.is_given(argv, *EDITS):
        from diffjax import edit

        edit.main(argv)
        return
    workdir = begin(argv)
    distributed = f.is_given(argv, "distributed")
    if distributed:  # before a config is loaded, which may ask for a device
        start.join_processes(True, **f.early_values(argv, start.processes, "distributed"))
    start.check_platform()
    model, weights = open_asked(workdir, argv)
    if model and not f.is_given(argv, "sampler", "grid"):
        folder = workdir or Path(f.early_flag(argv, "--pretrained"))
        model, tuned_for = tuned.at_steps(model, folder, f.early_flag(argv, "--steps"))
        print(tuned_for) if tuned_for else None
    request = read_flags(argv, model, f"sample.py {workdir or 'WORKDIR'}")
    if request is None:
        return
    check_opened(model, "python sample.py")
    if not distributed:
        start.join_processes(**request.processes)
    kept = executables.of_workdir(workdir, model) if workdir else None
    draw(model, weights, request, kept)


def read_flags(argv, model, prog) -> Request | None:
    """The flags; None where they asked for a list, which is printed."""
    from diffjax import grids, samplers
    from diffjax.errors import InputError
    from diffjax.experiment import Sampling
    from diffjax.run import flags as f
    from diffjax.run import listing, start
    from diffjax.run.opening import published
    from diffjax.types import AdaptiveSampler, Grid, Sampler

    usual = model.sampling if model else Sampling()
    stepped = f.constructors(samplers, Sampler)
    adaptive = f.constructors(samplers, AdaptiveSampler)
    makers = f.constructors(grids, Grid)
    known = dict(sorted((stepped | adaptive).items()))
    shared = [flags, published, start.processes, start.compiled]
    shared += [f.flags_of(c.flags) for c in (model.conditions if model else ())]
    taken = [name for function in shared for name in inspect.signature(function).parameters]
    wanted = "samplers" if "--list-samplers" in argv else f.early_flag(argv, "--list")
    if wanted in listing.LISTS:
        print(listing.LISTS[wanted](known, makers, model, taken))
        return None
    name, constructor = f.named("sampler", argv, "--sampler", usual.sampler, known)
    grid_name, make_grid = f.named("grid", argv, "--grid", usual.grid, makers)
    of_sampler = f.options_of(constructor, taken)
    also_taken = [*taken, *inspect.signature(of_sampler).parameters]
    shared += [of_sampler, f.options_of(make_grid, also_taken)]
    defaults = usual._asdict() | {"sampler": name, "grid": grid_name}
    defaults |= defaults.pop("options") if constructor is usual.sampler else {}
    defaults |= defaults.pop("grid_options") if make_grid is usual.grid else {}
    asked, _, processes, _, *given, options, spacing = f.parse(
        prog, __doc__, shared, argv, defaults=defaults
    )
    f.at_least_one(asked, ("num", "batch_size", "steps"))
    f.check_seed(asked["seed"])
    options = f.keywords(constructor, options, stepped, taken)
    options = dict(usual.options) | options if constructor is usual.sampler else options
    spacing = f.keywords(make_grid, spacing, makers, also_taken)
    if name in adaptive and f.is_given(argv, "steps", "grid"):
        raise InputError(f"{name} chooses its own steps; leave out --steps and --grid.")
    if asked["corrected"] and (name in adaptive or f.is_given(argv, "sampler")):
        raise InputError("--corrected takes steps of its own; leave out --sampler.")
    conditions = {name: value for values in given for name, value in values.items()}
    grid = None if name in adaptive else partial(make_grid, **spacing)
    return Request(asked, processes, conditions, constructor, options, grid)


def draw(model, weights, request, kept=None):
    """Draw what the flags ask for, and write the files."""
    from diffjax.run import tilted
    from diffjax.run.draw import conditions_of
    from diffjax.run.writing import draw_and_write

    asked, constructor, options, loop = request.asked, request.constructor, request.options, None
    ts = request.grid and request.grid(model.schedule, asked["steps"])
    raw = conditions_of(model, asked["num"], request.conditions)
    if asked["corrected"]:
        tilted.check(model, raw, asked)
        options = {"scale": asked["guidance_scale"]}
        model, constructor, loop = tilted.of_pairs(model), tilted.corrected, tilted.particles
    draw_and_write(weights, model, constructor, options, ts, raw, asked, loop, kept=kept)


if __name__ == "__main__":
    from diffjax.run import start

    start.run(main)
