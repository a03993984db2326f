"""Draw samples from a trained model: `python sample.py WORKDIR [flags]`.

Or from weights published elsewhere: `python sample.py --pretrained FOLDER [flags]`.
"""

import inspect
import time
from functools import partial
from pathlib import Path

GIF_SAMPLES = 100
LIST_NOTE = """calls: of the denoiser per step, at the defaults; an option named there sets them. A
sampler without (-) chooses its own steps, and sampling says how many calls they were."""


def flags(
    num: int = 100,
    steps: int = 50,
    sampler: str = "ddim",
    grid: str = "trailing",
    guidance_scale: float = 1.0,
    label: int | None = None,
    seed: int = 0,
    batch_size: int = 250,
    step: int | None = None,
    out: Path = Path("samples.png"),
    npz: Path | None = None,
    gif: Path | None = None,
    list_samplers: bool = False,
    pretrained: Path | None = None,
    autoencoder: Path | None = None,
    mesh: str = "",
):
    """Flags of every sampler; a sampler's own options are flags beside them.

    Args:
      num: number of samples.
      steps: steps of the sampler; an adaptive one chooses its own.
      sampler: name of a sampler; --list-samplers shows them all.
      grid: name of a function of diffjax.grids, such as trailing or karras.
      guidance_scale: 1 is no guidance.
      label: class of every sample; default cycles through the classes.
      seed: the same seed gives the same samples, whatever the batch size.
      batch_size: samples per compiled call.
      step: step of the checkpoint; default the newest that is intact.
      out: PNG of all samples, sorted by class.
      npz: file for `samples` (uint8, NHWC) and `labels`.
      gif: animation of the denoising of the first samples, 100 at most.
      list_samplers: print every sampler with its order, calls, paper and flags, and stop.
      pretrained: weights published elsewhere, in place of a workdir: a folder with config.json
        and *.safetensors of diffusers, ADM, EDM or DiT.
      autoencoder: folder of a published autoencoder, which turns latents into images.
      mesh: sizes of the axes data, fsdp and tensor, such as data=4,fsdp=2; default all
        devices along data. It does not change the samples.
    """


def main(argv):
    """Read the flags, restore the EMA weights, draw, and write the pictures."""
    from diffjax import cli, config, generate, grids, samplers
    from diffjax.types import AdaptiveSampler, Grid, Sampler

    argv = list(argv)
    workdir = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    published_at = cli.peek(argv, "--pretrained")
    experiment, weights = source(workdir, published_at)
    usual = (experiment.sampling if experiment else config.Sampling())._asdict()
    usual.update(sampler=usual["sampler"].__name__, grid=usual["grid"].__name__)
    name = cli.peek(argv, "--sampler", usual["sampler"])
    if name == usual["sampler"]:
        usual.update(usual.pop("options"))
    stepped = cli.constructors(samplers, Sampler)
    adaptive = cli.constructors(samplers, AdaptiveSampler)
    known = dict(sorted((stepped | adaptive).items()))
    taken = [name for f in (flags, cli.processes) for name in inspect.signature(f).parameters]
    if "--list-samplers" in argv:
        print(f"{cli.describe(known, taken)}\n\n{LIST_NOTE}")
        return
    constructor = cli.choose("sampler", name, known)
    asked, processes, options = cli.parse(
        f"sample.py {workdir or 'WORKDIR'}",
        __doc__,
        [flags, cli.processes, cli.options_of(constructor, taken)],
        argv,
        defaults=usual,
    )
    if experiment is None:
        raise cli.InputError(
            "give the workdir of a trained model, as in `python sample.py runs/digits`, or "
            "--pretrained with a folder of published weights."
        )
    check(asked, experiment)
    options = cli.keywords(constructor, options, stepped, taken)
    cli.processes(**processes)
    make_grid = cli.choose("grid", asked["grid"], cli.constructors(grids, Grid))
    ts, loop = make_grid(experiment.schedule, asked["steps"]), generate.on_grid
    if name in adaptive:
        if asked["gif"]:
            raise cli.InputError(f"{name} has no grid for --gif to show; leave out one of them.")
        ts, loop = grids.trailing(experiment.schedule, 1), generate.without_grid
    write(weights, experiment, constructor, options, ts, loop, asked)


def source(workdir, published_at):
    """What to draw from, and a function to its weights: of a workdir, or published ones."""
    from diffjax import config
    from diffjax.errors import InputError

    if workdir and published_at:
        raise InputError(f"give a workdir or --pretrained; got {workdir} and {published_at}.")
    if workdir:
        experiment = config.recall(workdir)
        return experiment, partial(restore_ema, workdir, experiment)
    if published_at:
        return read_published(published_at)
    return None, None


def read_published(folder):
    """What `source` gives, of weights published elsewhere."""
    import jax

    from diffjax import parallel
    from diffjax.published import published

    model, params = published(folder)

    def weights(mesh, step, say):
        return jax.device_put(params, parallel.replicated(mesh)), f"weights of {folder}"

    return model, weights


def read_decoder(folder):
    """From a network's samples to images: a published autoencoder, or nothing to do."""
    if folder is None:
        return lambda x: x
    from diffjax.published import decoder

    return decoder(folder)


def check(asked, experiment):
    """Refuse what cannot be drawn or written, before any work."""
    from diffjax import cli
    from diffjax.errors import InputError

    cli.at_least_one(asked, ("num", "batch_size", "steps"))
    label, classes = asked["label"], experiment.num_classes
    if label is not None and not 0 <= label < classes:
        what = f"from 0 to {classes - 1}" if classes else "left out: this model has no classes"
        raise InputError(f"--label must be {what}; got {label}.")
    for path in filter(None, (asked["out"], asked["npz"], asked["gif"])):
        if not path.parent.is_dir():
            raise InputError(f"the folder {path.parent} for {path.name} does not exist; make it.")


def write(weights, experiment, constructor, options, ts, loop, asked):
    """Draw all samples in batches of one compiled function, and write them."""
    import jax
    import numpy as np
    from tqdm import tqdm

    from diffjax import images, parallel
    from diffjax.generate import make_draw
    from diffjax.samplers import sample_path

    say = print if parallel.is_main() else (lambda text: None)
    mesh = parallel.make_mesh(asked["mesh"])
    params, named = weights(mesh, asked["step"], say)
    decode = read_decoder(asked["autoencoder"])
    num, batch = asked["num"], min(asked["num"], asked["batch_size"])
    scale = asked["guidance_scale"]
    labels = np.arange(num) % max(experiment.num_classes, 1)
    labels = labels if asked["label"] is None else np.full(num, asked["label"])
    key = parallel.init_sharded(jax.random.key, mesh, asked["seed"])

    def call(draw, first, size):
        # A last batch that is not full is drawn whole and cut, so that nothing recompiles;
        # the key is that of every batch, for sample i folds in its index.
        wanted = np.resize(labels[first : first + size], size) if experiment.num_classes else None
        return draw(params, jax.random.clone(key), ts, size, wanted, scale, first)

    draw = make_draw(experiment, constructor, options, scale != 1, loop.draw, mesh)
    silent = not parallel.is_main()
    bar = tqdm(total=num, unit=" images", desc="compiling", leave=False, disable=silent)
    call(draw, 0, batch)
    began, parts = time.perf_counter(), []
    for first in range(0, num, batch):
        samples, spent = call(draw, first, batch)
        parts.append(np.asarray(decode(samples[: num - first])))
        if first == 0:
            rate = batch / (time.perf_counter() - began)
            bar.clear()
            say(
                f"{mesh.size} {jax.devices()[0].device_kind}, {constructor.__name__}, "
                f"{spent} {loop.unit}, {rate:,.0f} images/s once compiled; "
                f"guidance scale {scale:g}, {named}"
            )
            bar.set_description("sampling")
        bar.update(len(parts[-1]))
    bar.close()
    path = asked["gif"] and call(
        make_draw(experiment, constructor, options, scale != 1, sample_path, mesh),
        0,
        min(num, GIF_SAMPLES),
    )
    if silent:
        return
    samples = images.to_uint8(np.concatenate(parts))
    images.save_png(asked["out"], images.grid(*sheet(samples, labels)))
    print(f"{num} samples in {asked['out']}")
    if asked["npz"]:
        np.savez_compressed(asked["npz"], samples=samples, labels=labels)
        print(f"arrays `samples` and `labels` in {asked['npz']}")
    if asked["gif"]:
        shown = labels[: path.shape[1]]
        frames = [images.to_uint8(np.asarray(decode(frame))) for frame in path]
        frames = [images.grid(*sheet(frame, shown)) for frame in frames]
        images.save_gif(asked["gif"], frames)
        print(f"animation of {len(shown)} samples in {asked['gif']}")


def restore_ema(workdir, experiment, mesh, step, say):
    """The EMA parameters of a checkpoint, and what to call them."""
    import jax

    from diffjax import checkpoint, config, parallel
    from diffjax.errors import InputError

    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{workdir} has no checkpoints yet; train with python train.py.")
    initial = partial(config.initial_state, experiment)
    like = parallel.abstract(initial, mesh, jax.random.key(0))
    manager = checkpoint.reader(folder)
    restored = checkpoint.restore(manager, like, step)
    manager.close()
    if restored is None:
        raise InputError(f"{workdir} has no checkpoints yet; train with python train.py.")
    for sentence in restored.damaged:
        say(f"sample.py: warning: {sentence}; using {restored.step}")
    return restored.state.ema_params, f"checkpoint {restored.step}"


def sheet(samples, labels):
    """The samples sorted by class, and how many go in a row: one row per class if they fit."""
    import numpy as np

    order = np.argsort(labels, kind="stable")
    per_class = int(np.bincount(labels).max())
    several = len(np.unique(labels)) > 1
    columns = per_class if several and per_class <= 32 else int(np.ceil(len(labels) ** 0.5))
    return samples[order], columns


if __name__ == "__main__":
    from diffjax import cli

    cli.run(main)
