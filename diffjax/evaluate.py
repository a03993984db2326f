"""Compare samples with real images: `python -m diffjax.evaluate SAMPLES [--reference REAL]`.

Either side is a folder of images, an .npz, tfds:NAME (or tfds:NAME:SPLIT) or a workdir of train.py.
A workdir is code (its config.py runs): evaluate only those you trust.
"""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from diffjax import parallel
from diffjax.errors import InputError
from diffjax.evaluation import compare, drawn, judging, record, sides, sweeps
from diffjax.evaluation.comparison import Comparison
from diffjax.evaluation.extractors import choose_features
from diffjax.run import best as kept
from diffjax.run import flags as f

STRIPS = 6
"""Denoisings that the report shows."""


def flags(
    reference: str | None = None,
    features: str | None = None,
    num: int = 1000,
    seed: int = 0,
    step: int | None = None,
    ema: str = "",
    samplers: str = "",
    calls: str = "5,10,20,50",
    metric: str = "",
    likelihood: int = 0,
    out: Path | None = None,
    groups: int = 10,
    pairwise: int = compare.FEW,
    export: Path | None = None,
    paired: bool = False,
    against: str | None = None,
    judgements: list[Path] = [],  # noqa: B006
    report: bool = True,
):
    """Flags of an evaluation.

    Args:
      reference: real images; default the data that the workdir was trained on.
      features: pixels, pca, classifier (trained on the reference's labels), efficientnet,
        clip:FOLDER, or a file of FID's Inception weights; default classifier where there are
        labels, else pca.
      num: samples to draw from a workdir; of other sides all are read.
      seed: of the draws.
      step: checkpoint of a workdir; default the newest that is intact.
      ema: EMA length, such as 0.10, to draw a workdir with; of several, such as 0.05,0.10,0.15,
        the metric is drawn and the best evaluated.
      samplers: draw the metric against denoiser calls for these, such as ddim,dpmpp_multistep.
      calls: numbers of denoiser calls for --samplers.
      metric: of --ema and --samplers, by its name in the table; default the Frechet distance.
      likelihood: images and samples whose bits per dimension are computed; 0 for none.
      out: folder for metrics.json, report.html and the cache; default the workdir, or
        evaluation beside the samples.
      groups: of the jackknife that intervals come from; 0 for none.
      pairwise: images of each side that KID and the metrics of neighbours use at most, since
        their work grows with its square; 0 for all.
      export: npz for the reference's statistics, mu and sigma, as other evaluators read them.
      paired: sample i is the reconstruction of reference image i: PSNR and SSIM as well, and
        the Frechet distance is that of reconstructions, rFID.
      against: other samples, which judge.html shows in place of real images.
      judgements: files that judge.html saved, whose win rate is merged into the report.
      report: write report.html, which needs pip install diffjax[report].
    """


def main(argv: Sequence[str]) -> None:
    """Read both sides, compare them, print the table, and write metrics.json and the report."""
    from diffjax.run import start

    argv = list(argv)
    given = argv.pop(0) if argv and not argv[0].startswith("-") else None
    prog, functions = "python -m diffjax.evaluate SAMPLES", [flags, start.processes, start.compiled]
    asked, processes, compiled = f.parse(prog, __doc__, functions, argv)
    if given is None:
        raise InputError("give the samples, as in `python -m diffjax.evaluate runs/digits`.")
    check(asked, sides.is_workdir(given), given)
    start.compiled(**compiled)
    start.join_processes(**processes)
    start.check_platform()
    workdir = Path(given) if sides.is_workdir(given) else None
    out = asked["out"] or workdir or Path(given.replace(":", "-")).parent / "evaluation"
    cache = out / "evaluation"
    cache.mkdir(parents=True, exist_ok=True)
    run = drawn.open_run(workdir, asked["step"]) if workdir else None
    reference = read_reference(asked, workdir, cache)
    samples = sides.read(given) if run is None else None
    if samples is None:
        shape = run.experiment.data_shape or run.experiment.model.example.shape
        sides.check_shapes(given, shape, reference)
    else:
        sides.check_pair(samples, reference)
    extractor = shared(lambda: choose_features(asked["features"], reference, cache))
    comparison = Comparison(asked, reference, extractor, cache)
    made = {"command": shlex.join(["python", "-m", "diffjax.evaluate", given, *argv])}
    evaluate(comparison, samples, run, out, made)


def shared(make):
    """What the main process makes first, and then the others from the files that it left."""
    made = []
    parallel.on_main(lambda: made.append(make()), "could not make the features")
    return made[0] if made else make()


def check(asked, is_workdir, given):
    """Refuse flags that make no sense together."""
    f.at_least_one(asked, ("num",))
    f.check_seed(asked["seed"])
    if asked["groups"] < 0 or asked["groups"] == 1:
        raise InputError(f"--groups must be 0 or at least 2; got {asked['groups']}.")
    asked["ema"] = numbers("ema", asked["ema"], float)
    asked["calls"] = numbers("calls", asked["calls"], int)
    asked["samplers"] = [name for name in asked["samplers"].split(",") if name]
    asked["judgements"] = judging.read_judgements(asked["judgements"])
    of_workdirs = [n for n in ("step", "ema", "samplers", "likelihood") if asked[n]]
    if of_workdirs and not is_workdir:
        raise InputError(f"--{of_workdirs[0]} is of a workdir of train.py, which {given} is not.")
    if not is_workdir and asked["reference"] is None:
        raise InputError(f"--reference is needed: {given} is no workdir, which names its data.")


def numbers(name, text, kind):
    """Numbers apart by commas, each above 0."""
    try:
        found = [kind(part) for part in text.split(",") if part]
    except ValueError as error:
        raise InputError(f"--{name} are numbers such as 0.05,0.10; got {text!r}.") from error
    if any(value <= 0 for value in found):
        raise InputError(f"--{name} must be above 0; got {text!r}.")
    return found


def read_reference(asked, workdir, cache):
    """The real side."""
    if asked["reference"]:
        return read(asked["reference"], asked, cache)
    return sides.training_data(workdir)


def read(text, asked, cache):
    """A side that is named; a workdir draws at its own defaults."""
    if not sides.is_workdir(text):
        return sides.read(text)
    return drawn.samples_of(drawn.open_run(Path(text)), asked["num"], asked["seed"], cache)


def evaluate(comparison: Comparison, samples, run, out, made):
    """Draw, compare, and write what was found; `made` becomes metrics.json."""
    from tqdm import tqdm

    asked, cache = comparison.asked, comparison.cache
    extras, notes = {}, []
    with tqdm(total=asked["num"], desc="sampling", leave=False, disable=run is None) as bar:
        draw = partial(
            drawn.samples_of, num=asked["num"], seed=asked["seed"], cache=cache, progress=bar.update
        )
        if run is not None:
            run = at_length(comparison, run, draw, made, extras)
            notes += run.notes
            samples = draw(run)
    sides.check_pair(samples, comparison.reference)
    if run is not None:
        of_run(comparison, run, made, extras)
    judged = comparison.sets(samples)
    if not parallel.is_main():
        return
    figures, more = comparison.figures(samples, judged)
    if asked["likelihood"]:
        found, extras["bits"] = comparison.likelihoods(run, samples)
        figures |= found
    if asked["export"] and comparison.real is not None:
        comparison.export(asked["export"])
    if asked["against"]:
        extras["against"] = read(asked["against"], asked, cache)
        sides.check_pair(samples, extras["against"])
    made |= record.describe(comparison, samples, run, notes + more)
    made["metrics"] = {name: record.plain(figure) for name, figure in figures.items()}
    made["judgements"] = judging.merged(asked["judgements"], samples)
    write(comparison, samples, judged, out, made, extras)


def write(comparison, samples, judged, out, made, extras):
    """The files and the table."""
    record.write_json(out / "metrics.json", made)
    record.print_table(made)
    print(f"written: {out / 'metrics.json'}")
    if comparison.asked["report"]:
        from diffjax.evaluation.report import Extras, write_report

        both = (samples, comparison.reference, judged, comparison.real)
        for path in write_report(out, made, *both, Extras(**extras)):
            print(f"written: {path}")


def at_length(comparison, run, draw, made, extras):
    """The run with the EMA length that was asked for, or the best of several."""
    lengths = comparison.asked["ema"]
    if len(lengths) < 2:
        return drawn.with_length(run, lengths[0], comparison.asked["step"]) if lengths else run
    name, better = comparison.metric(has_labels(run))
    judge, step = partial(comparison.judge, name), comparison.asked["step"]
    line, notes = sweeps.over_lengths(run, lengths, step, draw, judge)
    best = sweeps.best_of(line.points, better).at
    points = [point._asdict() for point in line.points]
    made["ema"] = {"metric": name, "points": points, "best": best}
    extras |= {"lengths": line, "metric": name}
    for point in line.points:
        print(f"EMA length {point.at:g}: {name} {point.value:.4g}")
    print(f"best EMA length: {best:g}; python sample.py {run.workdir} --ema {best:g}")
    run = drawn.with_length(run, best, step)
    return run._replace(notes=tuple(dict.fromkeys((*notes, *run.notes))))


def has_labels(run):
    """Whether the run's samples have labels."""
    return any(condition.classes for condition in run.experiment.model.conditions)


def of_run(comparison, run, made, extras):
    """What is drawn from the run itself: its denoising, and other numbers of calls."""
    from tqdm import tqdm

    asked = comparison.asked
    if asked["report"]:
        extras["denoising"] = drawn.denoising(run, STRIPS, asked["seed"])
        extras["rows"] = kept.evaluations(run.workdir)
    if not asked["samplers"]:
        return
    name, _ = comparison.metric(has_labels(run))
    num, total = min(asked["num"], 500), len(asked["samplers"]) * len(asked["calls"])
    with tqdm(total=total, desc="samplers", leave=False) as bar:
        lines = sweeps.over_calls(
            run,
            asked["samplers"],
            asked["calls"],
            num,
            asked["seed"],
            comparison.cache,
            partial(comparison.judge, name),
            lambda name: bar.update(),
        )
    points = {line.name: [point._asdict() for point in line.points] for line in lines}
    made["calls"] = {"metric": name, "num": num, "samplers": points}
    extras |= {"calls": lines, "metric": name}


if __name__ == "__main__":
    from diffjax.run import start

    start.run(main)
