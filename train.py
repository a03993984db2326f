"""Train a diffusion model: `python train.py [CONFIG.py] [--workdir DIR] [flags]`.

One screen of orchestration: the mathematics is in diffjax/, the experiment in the config.
"""

import sys
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Literal

DEFAULT_CONFIG = str(Path(__file__).parent / "configs" / "digits.py")


def flags(
    workdir: Path | None = None,
    checkpoint_every: int = 500,
    log_every: int = 50,
    sample_every: int = 500,
    keep_checkpoints: int = 3,
    workers: int | None = None,
    parallel: Literal["jit", "pmap"] = "jit",
    mesh: str = "",
    plan: str = "",
):
    """Flags of a run that do not change what it computes.

    Args:
      workdir: folder of the run, resumed if it holds one; default runs/NAME of the config.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      log_every: steps between lines of metrics.jsonl; the last step is always logged.
      sample_every: steps between sample grids; 0 for only the one at the end.
      keep_checkpoints: how many of the newest to keep.
      workers: processes that read the data, 0 for a thread; default 0 for data in memory,
        else one per core, at most 8. They change no batch.
      parallel: jit shards batch and state over the mesh; pmap copies the state to each
        device, and draws as with --accumulate of at least as many pieces as devices.
      mesh: sizes of the axes data, fsdp and tensor, such as data=4,fsdp=2; default all
        devices along data.
      plan: TPU slices such as v5e:16x16,v5p:4x4x8, for which the step is compiled here and
        its memory, work and communication printed; nothing is trained.
    """


def main(argv):
    """Read the flags, restore or begin, train, and say what to run next."""
    from diffjax import checkpoint, cli, config
    from diffjax.parallel import is_main

    argv = list(argv)
    path = argv.pop(0) if argv and not argv[0].startswith("-") else DEFAULT_CONFIG
    get_config = config.load(path)
    prog = f"train.py {path if path != DEFAULT_CONFIG else '[CONFIG.py]'}"
    description = f"{__doc__}\n\nThis is {path}."
    functions = [flags, cli.processes, get_config]
    run, processes, given = cli.parse(prog, description, functions, argv)
    cli.at_least_one(run, ("checkpoint_every", "log_every", "keep_checkpoints"))
    if run["plan"]:
        print_plan(get_config, given, run, Path(path).stem)
        return
    cli.processes(**processes)
    experiment = config.build(get_config, given)
    workdir = run["workdir"] or Path("runs") / Path(path).stem
    with config.claim(workdir) if is_main() else nullcontext():
        if is_main():
            config.remember(workdir, path, config.all_options(get_config, given))
        with checkpoint.loops_that_end():
            train(experiment, workdir, run)


def print_plan(get_config, given, run, name):
    """What the step would need on TPU slices, compiled for them here."""
    from diffjax import config, plan

    def build(**changed):
        return config.build(get_config, given | changed)

    say = partial(print, file=sys.stderr, flush=True)
    print(plan.report(build, given, run["plan"], run["mesh"], name, say))


def train(experiment, workdir, run):
    """The run itself."""
    import jax
    from tqdm import tqdm

    from diffjax import checkpoint, config, data, parallel, training
    from diffjax.generate import preview

    say = print if parallel.is_main() else (lambda *text, **options: None)
    mesh = parallel.make_mesh(run["mesh"])
    source, augment = data.load(experiment.source), (data.flip,) if experiment.flip else ()
    data.check(source, experiment.shape, experiment.num_classes, augment)
    init_key, train_key, sample_key = parallel.keys(experiment.seed, 3, mesh)
    state = parallel.init_sharded(partial(config.initial_state, experiment), mesh, init_key)
    form = {"jit": parallel.jit_form, "pmap": parallel.pmap_form}[run["parallel"]]
    step_fn, place = config.compiled_step(experiment, form, state, mesh)
    manager = checkpoint.manager(workdir / "checkpoints", run["keep_checkpoints"])
    restored = checkpoint.restore(manager, state)
    if restored is not None:
        state = restored.state
        for sentence in restored.damaged:
            say(f"train.py: warning: {sentence}; using {restored.step}", file=sys.stderr)
        say(f"resuming {workdir} at step {restored.step} of {experiment.steps}")
    start, steps = int(state.step), experiment.steps
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    say(
        f"{len(source.examples):,} examples, {count:,} parameters, {steps:,} steps of "
        f"{experiment.batch_size} on {mesh.size} {jax.devices()[0].device_kind}; "
        f"writing to {workdir}"
    )
    batches = data.batches(
        source,
        experiment.batch_size,
        experiment.seed,
        start,
        augment,
        *parallel.share_of_batch(mesh),
        workers=run["workers"],
    )
    batches = place(map(data.arrays_of, batches))
    log = training.open_log(workdir, start) if parallel.is_main() else training.no_log()
    draw_preview = preview(experiment, mesh)
    bar = tqdm(
        total=steps * experiment.batch_size,
        initial=start * experiment.batch_size,
        unit=" images",
        unit_scale=True,
        dynamic_ncols=True,
        desc="training",
        disable=not parallel.is_main(),
    )

    def progress(step, state, metrics):
        if step % run["log_every"] == 0 or step == steps:
            scalars = {k: v for k, v in metrics.items() if k != "skipped"}
            log.write(step, {**scalars, "skipped": metrics["skipped"][0]})
            bar.set_postfix(step=step, loss=f"{float(metrics['loss']):.4f}", refresh=False)
        bar.update(experiment.batch_size)

    def save(step, state, metrics):
        if step % run["checkpoint_every"] == 0 or step == steps:
            checkpoint.save(manager, step, state)

    def pictures(step, state, metrics):
        if run["sample_every"] and step % run["sample_every"] == 0 and step != steps:
            path = workdir / "samples" / f"step_{step:06d}.png"
            log.image(step, draw_preview(state.ema_params, sample_key, path))

    try:
        with parallel.stop_together() as stop:
            state = training.fit(
                step_fn, state, train_key, batches, steps, [progress, save, pictures], stop
            )
        bar.close()
        reached = int(state.step)
        checkpoint.save(manager, reached, state)
        checkpoint.finish(manager)
        if reached == steps:
            sheet = draw_preview(state.ema_params, sample_key, workdir / "samples.png")
            log.image(steps, sheet)
        log.close()
    except training.Diverged as error:
        sys.exit(f"train.py: stopped: {error}; {last_checkpoint(manager, workdir)}")
    except (checkpoint.NotSaved, OSError) as error:
        sys.exit(f"train.py: stopped: {error}")
    finally:
        bar.close()
        with suppress(Exception):  # a failed save has been told
            manager.close()
    if reached < steps:
        say(f"stopped at step {reached:,} of {steps:,} and saved; the same command resumes it")
    else:
        say(f"trained {steps:,} steps; samples in {workdir / 'samples.png'}; to draw more:")
        say(f"  python sample.py {workdir} --num 100 --out samples.png")


def last_checkpoint(manager, workdir):
    """Where a run that diverged can be taken up again, as advice."""
    manager.wait_until_finished()
    step = manager.latest_step()
    if step is None:
        return "no checkpoint was saved yet. Lower the learning rate in a new --workdir."
    return (
        f"the last good checkpoint is {workdir / 'checkpoints' / str(step)}. Lower the learning "
        "rate in a new --workdir."
    )


if __name__ == "__main__":
    from diffjax import cli

    cli.run(main)
