"""Draw samples from a trained model: `python sample.py WORKDIR [flags]`.

Or from weights published elsewhere: `python sample.py --pretrained FOLDER [flags]`. A workdir
is code (its config.py runs): sample only those you trust.
"""

import inspect
import time
from pathlib import Path
from typing import Literal

Kind = Literal["samplers", "grids", "conditions", "configs"]


def flags(
    num: int = 100,
    steps: int = 50,
    sampler: str = "ddim",
    grid: str = "trailing",
    guidance_scale: float = 1.0,
    seed: int = 0,
    batch_size: int = 250,
    step: int | None = None,
    ema: float | None = None,
    out: list[Path] = [],  # noqa: B006
    npz: Path | None = None,
    gif: Path | None = None,
    list: Kind | None = None,
    list_samplers: bool = False,
    pretrained: Path | None = None,
    autoencoder: Path | None = None,
    mesh: str = "",
):
    """Flags of every draw; what can be asked for, and the options of sampler and grid, come after.

    Args:
      num: number of samples.
      steps: steps of the sampler; an adaptive one chooses its own.
      sampler: name of a sampler; --list samplers shows them all.
      grid: name of a grid of times; --list grids shows them all.
      guidance_scale: 1 is no guidance.
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
      pretrained: weights published elsewhere, in place of a workdir: a folder with config.json
        and *.safetensors of diffusers, ADM, EDM or DiT.
      autoencoder: folder of a published autoencoder, which turns latents into images.
      mesh: sizes of the axes data, fsdp and tensor, such as data=4,fsdp=2; default all
        devices along data. It does not change the samples.
    """


def main(argv):
    """Read the flags, restore the averaged weights, draw, and write the files."""
    from diffjax import grids, samplers
    from diffjax.errors import InputError
    from diffjax.experiment import Sampling
    from diffjax.run import flags as f
    from diffjax.run import listing, start
    from diffjax.types import AdaptiveSampler, Grid, Sampler

    argv = [*argv]
    workdir = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    published_at = f.early_flag(argv, "--pretrained")
    start.compiled(f.early_flag(argv, "--compilation-cache", "default"))
    distributed = f.is_given(argv, "distributed")
    if distributed:  # before a config is loaded, which may ask for a device
        start.join_processes(True, **f.early_values(argv, start.processes, "distributed"))
    start.check_platform()
    model, weights = open_model(workdir, published_at, f.early_flag(argv, "--autoencoder"))
    usual = model.sampling if model else Sampling()
    stepped = f.constructors(samplers, Sampler)
    adaptive = f.constructors(samplers, AdaptiveSampler)
    makers = f.constructors(grids, Grid)
    known = dict(sorted((stepped | adaptive).items()))
    shared = [flags, start.processes, start.compiled]
    shared += [f.flags_of(c.flags) for c in (model.conditions if model else ())]
    taken = [name for function in shared for name in inspect.signature(function).parameters]
    wanted = "samplers" if "--list-samplers" in argv else f.early_flag(argv, "--list")
    if wanted in listing.LISTS:
        print(listing.LISTS[wanted](known, makers, model, taken))
        return
    name, constructor = f.named("sampler", argv, "--sampler", usual.sampler, known)
    grid_name, make_grid = f.named("grid", argv, "--grid", usual.grid, makers)
    of_sampler = f.options_of(constructor, taken)
    also_taken = [*taken, *inspect.signature(of_sampler).parameters]
    shared += [of_sampler, f.options_of(make_grid, also_taken)]
    defaults = usual._asdict() | {"sampler": name, "grid": grid_name}
    defaults |= defaults.pop("options") if constructor is usual.sampler else {}
    defaults |= defaults.pop("grid_options") if make_grid is usual.grid else {}
    asked, processes, _, *given, options, spacing = f.parse(
        f"sample.py {workdir or 'WORKDIR'}", __doc__, shared, argv, defaults=defaults
    )
    if model is None:
        raise InputError(
            "give the workdir of a trained model, as in `python sample.py runs/digits`, or "
            "--pretrained with a folder of published weights."
        )
    f.at_least_one(asked, ("num", "batch_size", "steps"))
    f.check_seed(asked["seed"])
    options = f.keywords(constructor, options, stepped, taken)
    options = dict(usual.options) | options if constructor is usual.sampler else options
    spacing = f.keywords(make_grid, spacing, makers, also_taken)
    if not distributed:
        start.join_processes(**processes)
    if name in adaptive and f.is_given(argv, "steps", "grid"):
        raise InputError(f"{name} chooses its own steps; leave out --steps and --grid.")
    ts = None if name in adaptive else make_grid(model.schedule, asked["steps"], **spacing)
    raw = read_conditions(model, asked["num"], given)
    draw_and_write(weights, model, constructor, options, ts, raw, asked)


def open_model(workdir, published_at, autoencoder_at):
    """The model to draw from, and (mesh, step, ema, say) -> its weights, and their name."""
    from diffjax.errors import InputError

    if workdir and published_at:
        raise InputError(f"give a workdir or --pretrained; got {workdir} and {published_at}.")
    if workdir:
        model, weights = of_workdir(workdir)
    elif published_at:
        model, weights = of_published(published_at)
    else:
        return None, None
    if autoencoder_at:
        from diffjax.pretrained.model import with_decoder

        model = with_decoder(model, autoencoder_at)
    return model, weights


def of_workdir(workdir):
    """What `open_model` gives, of a workdir of train.py."""
    from diffjax.run.snapshots import restore_length
    from diffjax.run.weights import restore_average
    from diffjax.run.workdir import load_experiment

    experiment = load_experiment(workdir)

    def weights(mesh, step, ema, say):
        if ema is not None:
            found = restore_length(workdir, experiment, mesh, ema, step)
            for sentence in found.damaged:
                say(f"sample.py: warning: {sentence}")
            return found.params, f"EMA length {ema:g} at step {found.step}"
        found = restore_average(workdir, experiment, mesh, step)
        for sentence in found.damaged:
            say(f"sample.py: warning: {sentence}; using {found.step}")
        return found.params, f"checkpoint {found.step}"

    return experiment.model, weights


def of_published(folder):
    """What `open_model` gives, of weights published elsewhere."""
    import jax

    from diffjax import parallel
    from diffjax.errors import InputError
    from diffjax.pretrained.model import published

    model, params = published(folder)

    def weights(mesh, step, ema, say):
        if ema is not None:
            raise InputError("--ema is of a workdir; published weights are one average.")
        return jax.device_put(params, parallel.replicated(mesh)), f"weights of {folder}"

    return model, weights


def read_conditions(model, num, given):
    """The raw conditions of all samples, from the values of the conditions' flags."""
    from diffjax.run.draw import conditions_of

    return conditions_of(model, num, {k: v for values in given for k, v in values.items()})


def open_writers(model, asked):
    """The files that were asked for, checked: a list of (path, writer)."""
    from diffjax.run.files import writer_of

    paths = [*asked["out"], *(p for p in (asked["npz"], asked["gif"]) if p)]
    if not asked["out"]:
        usual = ".png" if ".png" in model.codec.writers else next(iter(model.codec.writers))
        paths.insert(0, Path(f"samples{usual}"))
    return [(path, writer_of(path, model.codec)) for path in paths]


def draw_and_write(weights, model, constructor, options, ts, raw, asked):
    """Draw all samples in batches of one compiled function, and write them as they come."""
    import jax
    import numpy as np
    from tqdm import tqdm

    from diffjax import grids, parallel
    from diffjax.errors import InputError
    from diffjax.run import draw as d
    from diffjax.run.flags import name_of
    from diffjax.run.weights import load_frozen

    main_process = parallel.is_main()
    say = print if main_process else (lambda text: None)
    writers = open_writers(model, asked)
    animated = [(path, writer) for path, writer in writers if writer.frames]
    if animated and ts is None:
        raise InputError(
            f"{name_of(constructor)} has no grid for --gif to show; leave out one of them."
        )
    loop = d.on_grid if ts is not None else d.without_grid
    ts = grids.trailing(model.schedule, 1) if ts is None else ts
    mesh = parallel.make_mesh(asked["mesh"])
    num, batch = asked["num"], min(asked["num"], asked["batch_size"])
    scale = asked["guidance_scale"]
    guide = scale != 1
    draw = d.make_draw(model, constructor, options, guide, loop, mesh)
    params, named = weights(mesh, asked["step"], asked["ema"], say)
    frozen = load_frozen(model.frozen, mesh)
    key = parallel.init_sharded(jax.random.key, mesh, np.uint32(asked["seed"]))

    def part(first, size):
        # A last batch that is not full is drawn whole and cut, so that nothing recompiles;
        # the key is that of every batch, for sample i folds in its index.
        wanted = {name: array[first : first + size] for name, array in raw.items()}
        return params, frozen, jax.random.clone(key), ts, wanted, size, scale, first

    bar = tqdm(total=num, unit=" samples", desc="compiling", leave=False, disable=not main_process)
    draw.compile(*part(0, batch))
    bar.set_description("sampling")
    sinks = [writer.open(path, num, raw) for path, writer in writers if not writer.frames]
    sinks = sinks if main_process else []
    for first in range(0, num, batch):
        began = time.perf_counter()
        samples, spent = draw.samples(*part(first, batch))
        if not np.isfinite(samples).all():
            raise InputError(
                "the samples are not finite; use another sampler or more --steps, a lower "
                "--guidance-scale, or an earlier --step."
            )
        if first == 0:
            rate = batch / (time.perf_counter() - began)
            bar.clear()
            say(
                f"{mesh.size} {jax.devices()[0].device_kind}, {name_of(constructor)}, "
                f"{spent} {loop.unit}, {rate:,.0f} images/s once compiled; "
                f"guidance scale {scale:g}, {named}"
            )
        for sink in sinks:
            sink.add(samples[: num - first])
        bar.update(len(samples[: num - first]))
    bar.close()
    for path, writer in animated:
        film = d.make_draw(model, constructor, options, guide, d.path_on_grid, mesh)
        frames, _ = film.samples(*part(0, min(num, writer.frames)))
        if main_process:
            sinks.append(writer.open(path, num, raw))
            sinks[-1].add(frames)
    for sink in sinks:
        print(sink.close())


if __name__ == "__main__":
    from diffjax.run import start

    start.run(main)
