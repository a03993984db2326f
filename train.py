"""Train a diffusion model: `python train.py [CONFIG.py] [--workdir DIR] [flags]`.

One screen of orchestration: the mathematics is in diffjax/, the experiment in the config. A
config is Python code that runs, and a workdir keeps it: train and sample only what you trust.
"""

import sys
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal

DEFAULT_CONFIG = str(Path(__file__).parent / "configs" / "digits.py")


def flags(
    workdir: Path | None = None,
    init_from: Path | None = None,
    allow_changes: tuple[str, ...] = (),
    checkpoint_every: int = 500,
    log_every: int = 50,
    sample_every: int = 500,
    evaluate_every: int = 0,
    evaluate_num: int = 500,
    best_metric: str = "frechet_distance",
    keep_checkpoints: int = 3,
    workers: int | None = None,
    parallel: Literal["jit", "pmap"] = "jit",
    mesh: str = "",
    plan: str = "",
):
    """Flags of a run that do not change what it computes.

    Args:
      workdir: folder of the run, resumed if it holds one; default runs/NAME of the config.
      init_from: start from weights, those of another workdir or of a published folder.
      allow_changes: options of the config that may differ from those the workdir was begun
        with, or code; more --steps always may.
      checkpoint_every: steps between checkpoints; the last step is always saved.
      log_every: steps between lines of metrics.jsonl; the last step is always logged.
      sample_every: steps between sample grids; 0 for only the one at the end.
      evaluate_every: steps between comparisons of samples with the data, logged as eval/...;
        0 for none.
      evaluate_num: samples of such a comparison.
      best_metric: of these comparisons, by which the best checkpoint is kept beside the newest,
        such as kid, recall or classifier_agreement.
      keep_checkpoints: how many of the newest to keep.
      workers: processes that read the data, 0 for a thread; default 0 for data in memory,
        else one per core, at most 8. They change no batch.
      parallel: jit shards batch and state over the mesh; pmap copies the state to each
        device, and draws as with --accumulate of at least as many microbatches as devices.
      mesh: sizes of the axes data, fsdp and tensor, such as data=4,fsdp=2; default all
        devices along data.
      plan: TPU slices such as v5e:16x16,v5p:4x4x8, for which the step is compiled here and
        its memory, work and communication printed; nothing is trained.
    """


def main(argv):
    """Read the flags, restore or begin, train, and say what to run next."""
    from diffjax import checkpoint, parallel
    from diffjax.run import config, start
    from diffjax.run import flags as f
    from diffjax.run import workdir as w

    argv = list(argv)
    path = argv.pop(0) if argv and not argv[0].startswith("-") else DEFAULT_CONFIG
    get_config = config.load(path)
    prog = f"train.py {path if path != DEFAULT_CONFIG else '[CONFIG.py]'}"
    description = f"{__doc__}\n\nThis is {path}."
    functions = [flags, start.processes, start.compiled, get_config]
    run, processes, compiled, given = f.parse(prog, description, functions, argv)
    f.at_least_one(run, ("checkpoint_every", "log_every", "keep_checkpoints"))
    start.compiled(**compiled)
    if run["plan"]:
        print_plan(get_config, given, run, Path(path).stem)
        return
    start.join_processes(**processes)
    start.check_platform()
    experiment = config.build(get_config, given)
    options = config.all_options(get_config, given) | dict(experiment.resolved)
    workdir = run["workdir"] or Path("runs") / Path(path).stem
    with ExitStack() as stack:

        def claim():
            stack.enter_context(w.lock_workdir(workdir))
            if w.read_record(workdir) is None:
                w.save_config(workdir, path, get_config, options)
                return
            before = w.load_experiment(workdir)
            kept = w.check_config(workdir, path, get_config, options, run["allow_changes"])
            tell_changes(workdir, kept, before, experiment)

        parallel.on_main(claim, f"could not take the workdir {workdir}")
        stack.enter_context(checkpoint.loops_that_end())
        train(experiment, workdir, run)


def tell_changes(workdir, kept, before, experiment):
    """Say what differs from the run so far, and what that does to its learning rate."""
    if not kept:
        return
    print(f"{workdir}: {'; '.join(kept)}")
    if before.learning_rate and experiment.learning_rate and experiment.steps > before.steps:
        at, was, now = before.steps, before.learning_rate, experiment.learning_rate
        print(
            f"the learning rate follows the schedule of {experiment.steps:,} steps from here on: "
            f"at step {at:,} it is {float(now(at)):.3g}, where it was {float(was(at)):.3g}"
        )


def print_plan(get_config, given, run, name):
    """What the step would need on TPU slices, compiled for them here."""
    from diffjax import plan
    from diffjax.run import config

    def build(**changed):
        return config.build(get_config, given | changed)

    say = partial(print, file=sys.stderr, flush=True)
    print(plan.report(build, given, run["plan"], run["mesh"], name, say))


def train(experiment, workdir, run):
    """The run itself."""
    import jax

    from diffjax import checkpoint, data, parallel, training
    from diffjax.run.best import Kept
    from diffjax.run.preview import preview
    from diffjax.run.report import progress_bar, reporters
    from diffjax.run.snapshots import keeper
    from diffjax.run.state import check_data, compiled_step

    say = print if parallel.is_main() else (lambda *text, **options: None)
    mesh = parallel.make_mesh(run["mesh"])
    source = data.load(experiment.source)
    check_data(experiment, source)
    init_key, train_key, sample_key = parallel.keys(experiment.seed, 3, mesh)
    best = Kept(workdir)
    manager = checkpoint.manager(workdir / "checkpoints", run["keep_checkpoints"], best)
    frozen = read_frozen(experiment, workdir, mesh)
    state = begin(experiment, init_key, mesh, frozen, manager, run["init_from"], workdir, say)
    form = {"jit": parallel.jit_train_step, "pmap": parallel.pmap_train_step}[run["parallel"]]
    step_fn, place = compiled_step(experiment, form, state, mesh, frozen)
    first, steps = int(state.step), experiment.steps
    keep = keeper(experiment, workdir, manager, first)
    best.begin(first)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    say(
        f"{len(source.examples):,} examples, {count:,} parameters, {steps:,} steps of "
        f"{experiment.batch_size} on {mesh.size} {jax.devices()[0].device_kind}; "
        f"writing to {workdir}"
    )
    share, e = parallel.share_of_batch(mesh), experiment
    given = (source, e.batch_size, e.seed, first, e.augment, *share)
    placed = place(map(data.arrays_of, data.batches(*given, workers=run["workers"])))
    batches = training.Waited(placed)
    log = training.open_log(workdir, first) if parallel.is_main() else training.no_log()
    draw = preview(experiment.model, source.examples, mesh)

    def picture(step, state, path):
        sheet = draw(state.ema_params, frozen, sample_key, path)
        if sheet is not None:
            log.image(step, sheet)

    with faults_told(manager, keep, workdir), progress_bar(experiment, first) as bar:
        callbacks = reporters(experiment, run, workdir, keep.save, log, bar, batches, picture)
        if run["evaluate_every"]:
            from diffjax.evaluation.training import evaluator, while_training

            compare = evaluator(experiment, source, workdir, mesh, frozen, run["evaluate_num"])
            callbacks.insert(0, while_training(compare, run, steps, first, best, log, keep.save))
        with parallel.stop_together() as stop:
            state = training.fit(step_fn, state, train_key, batches, steps, callbacks, stop, frozen)
        bar.close()
        reached = int(state.step)
        keep.save(reached, state)
        keep.finish()
        if reached == steps:
            picture(steps, state, workdir / "samples.png")
        log.close()
    if reached > first:
        say(f"waited for data {batches.whole():.1%} of the time")
    tell_end(workdir, reached, steps, best.best, say)


@contextmanager
def faults_told(manager, keep, workdir):
    """End with a sentence where training diverges or a checkpoint cannot be written."""
    from diffjax import checkpoint, training

    try:
        yield
    except training.Diverged as error:
        sys.exit(f"train.py: stopped: {error}; {last_checkpoint(manager, workdir)}")
    except (checkpoint.NotSaved, OSError) as error:
        sys.exit(f"train.py: stopped: {error}")
    finally:
        with suppress(Exception):  # a failed save has been told
            keep.close()


def tell_end(workdir, reached, steps, best, say):
    """Say how the run ended, and what to type next."""
    if reached < steps:
        say(f"stopped at step {reached:,} of {steps:,} and saved; the same command resumes it")
        return
    there = (workdir / "samples.png").exists()
    seen = f"; samples in {workdir / 'samples.png'}" if there else ""
    say(f"trained {steps:,} steps{seen}; to draw more:")
    say(f"  python sample.py {workdir} --num 100{' --out samples.png' if there else ''}")
    if best.step >= 0:
        say(f"the best {best.metric}, {best.value:.4g}, is of --step {best.step}")


def read_frozen(experiment, workdir, mesh):
    """The frozen networks of model and loss, the same ones that the run began with."""
    from diffjax import parallel
    from diffjax.run import weights
    from diffjax.run.workdir import check_fingerprints

    frozen = weights.load_frozen({**experiment.model.frozen, **experiment.frozen}, mesh)
    found = {name: weights.fingerprint(params) for name, params in frozen.items()}
    parallel.on_main(lambda: check_fingerprints(workdir, found), "refused a frozen network")
    return frozen


def begin(experiment, key, mesh, frozen, manager, init_from, workdir, say):
    """The state to go on from: of a checkpoint, of given weights, or new."""
    from diffjax import checkpoint, parallel, training
    from diffjax.run.state import initial_state
    from diffjax.run.weights import starting_weights, with_weights

    def initial(key, frozen):
        return training.without_rates(initial_state(experiment, key, frozen))

    state = parallel.init_sharded(initial, mesh, key, frozen)
    restored = checkpoint.restore(manager, state)
    state = training.with_rates(restored.state if restored else state, experiment.optimizer)
    if restored is not None:
        for sentence in restored.damaged:
            say(f"train.py: warning: {sentence}; using {restored.step}", file=sys.stderr)
        say(f"resuming {workdir} at step {restored.step} of {experiment.steps}")
        return state
    if init_from is not None:
        say(f"starting from the weights of {init_from}")
        return with_weights(state, starting_weights(init_from), str(init_from))
    return state


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
    from diffjax.run import start

    start.run(main)
