"""Train a diffusion model: `python train.py [CONFIG.py] [--workdir DIR] [flags]`.

One screen of orchestration: the mathematics is in diffjax/, the experiment in the config.
"""

import sys
from pathlib import Path

DEFAULT_CONFIG = str(Path(__file__).parent / "configs" / "digits.py")


def flags(
    workdir: Path | None = None,
    checkpoint_every: int = 500,
    log_every: int = 50,
    sample_every: int = 500,
    keep_checkpoints: int = 3,
):
    """Flags of a run that do not change what it computes.

    Args:
      workdir: folder of the run, resumed if it holds one; default runs/NAME of the config.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      log_every: steps between lines of metrics.jsonl; the last step is always logged.
      sample_every: steps between sample grids; 0 for only the one at the end.
      keep_checkpoints: how many of the newest to keep.
    """


def main(argv):
    """Read the flags, restore or begin, train, and say what to run next."""
    from diffjax import cli, config

    argv = list(argv)
    path = argv.pop(0) if argv and not argv[0].startswith("-") else DEFAULT_CONFIG
    get_config = config.load(path)
    prog = f"train.py {path if path != DEFAULT_CONFIG else '[CONFIG.py]'}"
    run, given = cli.parse(prog, f"{__doc__}\n\nThis is {path}.", [flags, get_config], argv)
    cli.at_least_one(run, ("checkpoint_every", "log_every", "keep_checkpoints"))
    experiment = config.build(get_config, given)
    workdir = run["workdir"] or Path("runs") / Path(path).stem
    with config.claim(workdir):
        config.remember(workdir, path, config.all_options(get_config, given))
        train(experiment, workdir, **{k: v for k, v in run.items() if k != "workdir"})


def train(experiment, workdir, checkpoint_every, log_every, sample_every, keep_checkpoints):
    """The run itself."""
    import jax
    from tqdm import tqdm

    from diffjax import checkpoint, data, training
    from diffjax.generate import preview

    source = data.load(experiment.source)
    init_key, train_key, sample_key = jax.random.split(jax.random.key(experiment.seed), 3)
    state = jax.jit(
        lambda key: training.init_state(
            experiment.init(key), experiment.optimizer, experiment.context
        )
    )(init_key)
    manager = checkpoint.manager(workdir / "checkpoints", keep_checkpoints)
    restored = checkpoint.restore(manager, state)
    if restored is not None:
        state = restored.state
        for sentence in restored.damaged:
            print(f"train.py: warning: {sentence}; using {restored.step}", file=sys.stderr)
        print(f"resuming {workdir} at step {restored.step} of {experiment.steps}")
    start, steps = int(state.step), experiment.steps
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(
        f"{len(source.examples):,} examples, {count:,} parameters, {steps:,} steps of "
        f"{experiment.batch_size} on {jax.devices()[0].device_kind}; writing to {workdir}"
    )
    batches = data.batches(source, experiment.batch_size, experiment.seed, start, experiment.flip)
    log = training.open_log(workdir, start)
    draw_preview = preview(experiment)
    bar = tqdm(
        total=steps * experiment.batch_size,
        initial=start * experiment.batch_size,
        unit=" images",
        unit_scale=True,
        dynamic_ncols=True,
        desc="training",
    )

    def progress(step, state, metrics):
        if step % log_every == 0 or step == steps:
            scalars = {k: v for k, v in metrics.items() if k != "skipped"}
            log.write(step, {**scalars, "skipped": metrics["skipped"][0]})
            bar.set_postfix(step=step, loss=f"{float(metrics['loss']):.4f}", refresh=False)
        bar.update(experiment.batch_size)

    def save(step, state, metrics):
        if step % checkpoint_every == 0 or step == steps:
            checkpoint.save(manager, step, state)

    def pictures(step, state, metrics):
        if sample_every and step % sample_every == 0 and step != steps:
            path = workdir / "samples" / f"step_{step:06d}.png"
            log.image(step, draw_preview(state.ema_params, sample_key, path))

    step_fn = training.make_train_step(
        experiment.loss, experiment.optimizer, experiment.ema_decay, experiment.accumulate
    )
    try:
        with training.stop_on_signals() as stop:
            state = training.fit(
                step_fn, state, train_key, batches, steps, [progress, save, pictures], stop
            )
        bar.close()
        reached = int(state.step)
        checkpoint.save(manager, reached, state)
        if reached == steps:
            sheet = draw_preview(state.ema_params, sample_key, workdir / "samples.png")
            log.image(steps, sheet)
    except training.Diverged as error:
        bar.close()
        sys.exit(f"train.py: stopped: {error}; {last_checkpoint(manager, workdir)}")
    finally:
        log.close()
        manager.close()
    if reached < steps:
        print(f"stopped at step {reached:,} of {steps:,} and saved; the same command resumes it")
    else:
        print(f"trained {steps:,} steps; samples in {workdir / 'samples.png'}; to draw more:")
        print(f"  python sample.py {workdir} --num 100 --out samples.png")


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
