"""Edit pictures and restore measured ones: `python -m diffjax.edit WORKDIR [flags]`.

Or with weights published elsewhere: --pretrained FOLDER in place of WORKDIR. What is given
chooses the method, unless --method names one; --list methods shows all with their flags.

Variations of a picture, SDEdit:

    python -m diffjax.edit runs/digits --init-image seven.png --strength 0.6 --num 8

The part under a white mask drawn anew:

    python -m diffjax.edit runs/digits --init-image seven.png --mask lower.png --method repaint

A picture restored from what was measured of it; of --init-image it is measured here:

    python -m diffjax.edit runs/digits --operator super_resolution --factor 4 \\
        --measurement small.png --method ddnm

A picture of a 3 as an 8, in the same hand:

    python -m diffjax.edit runs/digits --init-image three.png --from-label 3 --label 8

From one picture to another:

    python -m diffjax.edit runs/digits --init-image a.png --to-image b.png --num 8

A condition that is not given, such as --label, is left open. Files are PNG (each row: what was
given, then the results) and npz, by suffix. A workdir is code: edit with those you trust.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from diffjax.errors import InputError

Kind = Literal["methods", "operators", "samplers", "grids", "conditions"]


def flags(
    init_image: Path | None = None,
    to_image: Path | None = None,
    mask: Path | None = None,
    measurement: Path | None = None,
    operator: str | None = None,
    method: str | None = None,
    strength: float | None = None,
    fit: bool = False,
    num: int | None = None,
    steps: int = 50,
    grid: str = "trailing",
    guidance_scale: float | None = None,
    seed: int = 0,
    batch_size: int = 250,
    step: int | None = None,
    out: list[Path] = [],  # noqa: B006
    list: Kind | None = None,
    mesh: str = "",
):
    """Flags of every edit; what can be asked for, and options of method and operator, come after.

    Args:
      init_image: picture to begin with, or an npz of `samples` as sample.py writes it.
      to_image: picture to end with, for interpolation.
      mask: grey picture, white where the picture is drawn anew and black where it is kept.
      measurement: what the operator made of the picture sought: a picture, or an npz of
        `measurement`.
      operator: name of what was measured; --list operators shows them all.
      method: name of a method; --list methods shows them all.
      strength: share of the steps that are run, in (0, 1]: how much may change.
      fit: resize and convert pictures of another size or mode instead of refusing them.
      num: number of results; default one for each picture given.
      steps: steps of the whole grid.
      grid: name of a grid of times; --list grids shows them all.
      guidance_scale: 1 is no guidance; default the model's where a condition is given, else 1.
      seed: the same seed gives the same results.
      batch_size: results per compiled call; of twisted_smc its particles.
      step: step of the checkpoint; default the newest that is intact.
      out: file to write, by its suffix, .png or .npz; may be given several times; default
        edited.png.
      list: print every method or operator with its flags, and stop.
      mesh: sizes of the axes data, fsdp and tensor; default all devices along data.
    """


def main(argv: Sequence[str]) -> None:
    """Read the flags and the pictures, restore the averaged weights, edit, and write the files."""
    from diffjax.run import start
    from diffjax.run.opening import begin, check_opened, open_asked

    argv = [*argv]
    workdir = begin(argv)
    start.check_platform()
    model, weights = open_asked(workdir, argv)
    request = read_flags(argv, model, f"python -m diffjax.edit {workdir or 'WORKDIR'}")
    if request is None:
        return
    check_opened(model, "python -m diffjax.edit")
    edit_and_write(model, weights, request, argv)


def flag_names() -> Sequence[str]:
    """The flags of every edit."""
    return [*inspect.signature(flags).parameters]


def nothing():
    """No operator: no flags."""


class Request(NamedTuple):
    """What the flags ask for.

    Attributes:
      asked: values of the flags of every edit.
      conditions: values of the flags of the model's conditions, and of what is given.
      method: constructor of the edit, and its keywords.
      operator: (shape) -> operator, or None.
      grid: (schedule, n) -> ts.
    """

    asked: Mapping[str, Any]
    conditions: Mapping[str, Any]
    method: tuple[Callable, dict[str, Any]]
    operator: Callable | None
    grid: Callable


def read_flags(argv: Sequence[str], model, prog: str) -> Request | None:
    """The flags; None where they asked for a list, which is printed."""
    from diffjax import grids, samplers
    from diffjax.editing import methods as m
    from diffjax.editing.edit import Edit
    from diffjax.experiment import Sampling
    from diffjax.run import edits, listing, start
    from diffjax.run import flags as f
    from diffjax.run.opening import published
    from diffjax.types import Grid, Sampler

    usual, conditions = model.sampling if model else Sampling(), model.conditions if model else ()
    if clash := {n for c in conditions for n in f.keywords_of(c.flags)} & {*flag_names()}:
        raise InputError(
            f"this model is given --{clash.pop()} as a condition of its own; draw with sample.py."
        )
    methods, operators = f.constructors(m, Edit), edits.operator_makers()
    steppers, makers = f.constructors(samplers, Sampler), f.constructors(grids, Grid)
    shared = [flags, published, start.compiled, *(f.flags_of(c.flags) for c in conditions)]
    shared.append(edits.before_flags(conditions))
    taken = [name for function in shared for name in inspect.signature(function).parameters]
    if (wanted := f.early_flag(argv, "--list")) in ("methods", "operators"):
        known = methods if wanted == "methods" else operators
        print(listing.functions_text(known, taken))
        return None
    if wanted in listing.LISTS:
        print(listing.LISTS[wanted](steppers, makers, model, taken))
        return None
    name = f.early_flag(argv, "--operator")
    operator = f.choose_by_name("operator", name, operators) if name else None
    name = f.early_flag(argv, "--method") or edits.default_method(argv, conditions, operator)
    method = f.choose_by_name("method", name, methods)
    grid_name, make_grid = f.named("grid", argv, "--grid", usual.grid, makers)
    options = [f.options_of(part, taken) for part in (method, operator or nothing, make_grid)]
    usual_grid = usual.grid_options if make_grid is usual.grid else {}
    defaults = {"method": name, "grid": grid_name, "steps": usual.steps, **usual_grid}
    asked, _, _, *given, of_method, of_operator, of_grid = f.parse(
        prog, __doc__, [*shared, *options], argv, defaults=defaults
    )
    f.at_least_one(asked, ("batch_size", "steps"))
    f.check_seed(asked["seed"])
    return Request(
        asked,
        {name: value for values in given for name, value in values.items()},
        (method, f.keywords(method, of_method, steppers, taken)),
        operator and partial(operator, **f.keywords(operator or nothing, of_operator, {}, taken)),
        partial(make_grid, **f.keywords(make_grid, of_grid, makers, taken)),
    )


def edit_and_write(model, weights, request: Request, argv: Sequence[str]) -> None:
    """Read what is given, and edit it in batches of one compiled function."""
    from diffjax.editing.edit import run_edit
    from diffjax.run import edits
    from diffjax.run.draw import Loop
    from diffjax.run.flags import at_least_one
    from diffjax.run.writing import draw_and_write

    asked, (method, options) = dict(request.asked), request.method
    if not options.get("noise_std"):  # a known 0, which the methods look at
        options.pop("noise_std", None)
    edit = method(model.schedule, **options)
    ts = edits.grid_of(request.grid(model.schedule, asked["steps"]), asked["strength"], edit)
    shape = edits.picture_shape(model)
    _, before = edits.raw_before(model.conditions, 1, request.conditions)
    noise_std = options.get("noise_std", 0.0)
    given, operator = edits.read_given(asked, edit, request.operator, shape, before, noise_std)
    if "operator" in inspect.signature(method).parameters:
        options["operator"] = edits.of_diffused(operator, model, shape)
    if asked["num"] is None:
        asked["num"] = edits.results_of(given)
    at_least_one(asked, ("num",))
    num = asked["num"]
    raw, said = edits.raw_conditions(model.conditions, num, request.conditions, argv)
    raw |= edits.raw_before(model.conditions, num, request.conditions)[0] if before else {}
    edited, arrays = edits.given_model(model, given, num)
    asked["guidance_scale"] = edits.guidance_scale_of(model, asked["guidance_scale"], said)
    loop = Loop(run_edit, edit.unit)
    draw_and_write(weights, edited, method, options, ts, raw | arrays, asked, loop, usual="edited")


if __name__ == "__main__":
    from diffjax.run import start

    start.run(main)
