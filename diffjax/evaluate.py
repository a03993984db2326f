"""Compare samples with real images: `python -m diffjax.evaluate SAMPLES [--reference REAL]`.

Either side is a folder of images, an .npz, tfds:NAME (or tfds:NAME:SPLIT) or a workdir of train.py.
A workdir is code (its config.py runs): evaluate only those you trust.
"""

import json
import shlex
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation import bits, compare, drawn, judging, sides, sweeps
from diffjax.evaluation.extractors import CLIP, choose_features
from diffjax.evaluation.features import Features
from diffjax.evaluation.frechet import frechet_distance, moments
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
    record = {"command": shlex.join(["python", "-m", "diffjax.evaluate", given, *argv])}
    evaluate(comparison, samples, run, out, record)


def shared(make):
    """What the main process makes first, and then the others from the files that it left."""
    from diffjax import parallel

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


class Comparison:
    """What every comparison of one call has in common.

    Attributes:
      asked: the flags.
      reference: the real side.
      extractor: of features.
      cache: folder of features.
      frechet: what the Frechet distance is called.
      real: features of the reference; None where it holds statistics alone.
    """

    def __init__(self, asked, reference, extractor: Features, cache: Path):
        self.asked, self.reference, self.extractor, self.cache = asked, reference, extractor, cache
        name = "FID" if extractor.canonical else "Frechet distance"
        self.frechet = f"r{name}" if asked["paired"] and extractor.canonical else name
        self.real = None if reference.moments is not None else self.sets(reference)

    def sets(self, side: sides.Side) -> compare.Sets:
        """Features and logits of a side, kept in pieces, which the processes share out."""
        import jax
        from tqdm import tqdm

        from diffjax import parallel

        size, files = 1000, []
        count, own = jax.process_count(), jax.process_index()
        quiet = not parallel.is_main()
        bar = tqdm(total=len(side.images), desc="features", leave=False, disable=quiet)
        for number, first in enumerate(range(0, len(side.images), size)):
            mark = f"features-{side.fingerprint}-{self.extractor.fingerprint}-{first}.npz"
            images = side.images[first : first + size]
            files.append(self.cache / mark)
            if number % count == own and not files[-1].is_file():
                found = {"features": self.extractor.function(images)}
                if self.extractor.logits:
                    found["logits"] = self.extractor.logits(images)
                drawn.write_whole(files[-1], found)
            bar.update(len(images))
        bar.close()
        drawn.together()
        parts = [dict(np.load(file)) for file in files]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        return compare.Sets(joined["features"], joined.get("logits"), side.labels)

    def table(self, judged: compare.Sets) -> dict:
        """The metrics of samples against the reference."""
        clip = (self.asked["features"] or "").startswith(CLIP)
        return compare.metrics_of(self.frechet, self.real, judged, clip=clip)

    def judge(self, name: str, side: sides.Side) -> tuple[float, float, float]:
        """One metric of a side, with its interval."""
        judged = self.sets(side)
        return compare.interval(
            self.table(judged)[name][0], self.real, judged, self.asked["groups"]
        )

    def metric(self, labelled: bool) -> tuple[str, str]:
        """The metric of --metric, and what is better.

        Raises:
          InputError: there is none of that name, or it has no best.
        """
        if self.real is None:
            raise InputError("a reference of statistics alone has no metric for --ema, --samplers.")
        stand_in = self.real if labelled else self.real._replace(labels=None)
        known = {name: how for name, (_, how) in self.table(stand_in).items() if how != "floor"}
        wanted = self.asked["metric"] or self.frechet
        for name, how in known.items():
            if wanted.lower().replace("_", " ") == name.lower():
                return name, how
        raise InputError(f"--metric must be one of {', '.join(known)}; got {wanted!r}.")


def evaluate(comparison: Comparison, samples, run, out, record):
    """Draw, compare, and write what was found."""
    from tqdm import tqdm

    from diffjax import parallel

    asked, cache, reference = comparison.asked, comparison.cache, comparison.reference
    extras, notes = {}, []
    with tqdm(total=asked["num"], desc="sampling", leave=False, disable=run is None) as bar:
        draw = partial(
            drawn.samples_of, num=asked["num"], seed=asked["seed"], cache=cache, progress=bar.update
        )
        if run is not None:
            run = at_length(comparison, run, draw, record, extras)
            notes += run.notes
        samples = draw(run) if run is not None else samples
    sides.check_pair(samples, reference)
    if run is not None:
        of_run(comparison, run, record, extras)
    judged = comparison.sets(samples)
    if not parallel.is_main():
        return
    figures, more = figures_of(comparison, samples, judged)
    if run is not None and asked["likelihood"]:
        figures |= likelihoods(comparison, run, samples, extras)
    if asked["against"]:
        extras["against"] = read(asked["against"], asked, cache)
        sides.check_pair(samples, extras["against"])
    record |= describe(comparison, samples, run, notes + more)
    record["metrics"] = {name: plain(figure) for name, figure in figures.items()}
    record["judgements"] = judging.merged(asked["judgements"], samples)
    write(comparison, samples, judged, out, record, extras)


def at_length(comparison, run, draw, record, extras):
    """The run with the EMA length that was asked for, or the best of several."""
    lengths = comparison.asked["ema"]
    if len(lengths) < 2:
        return drawn.with_length(run, lengths[0], comparison.asked["step"]) if lengths else run
    name, better = comparison.metric(has_labels(run))
    judge, step = partial(comparison.judge, name), comparison.asked["step"]
    line, notes = sweeps.over_lengths(run, lengths, step, draw, judge)
    best = sweeps.best_of(line.points, better).at
    points = [point._asdict() for point in line.points]
    record["ema"] = {"metric": name, "points": points, "best": best}
    extras |= {"lengths": line, "metric": name}
    for point in line.points:
        print(f"EMA length {point.at:g}: {name} {point.value:.4g}")
    print(f"best EMA length: {best:g}; python sample.py {run.workdir} --ema {best:g}")
    run = drawn.with_length(run, best, step)
    return run._replace(notes=tuple(dict.fromkeys((*notes, *run.notes))))


def has_labels(run):
    """Whether the run's samples have labels."""
    return any(condition.classes for condition in run.experiment.model.conditions)


def of_run(comparison, run, record, extras):
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
    record["calls"] = {"metric": name, "num": num, "samplers": points}
    extras |= {"calls": lines, "metric": name}


def figures_of(comparison, samples, judged):
    """Every metric that the two sides allow, and notes."""
    from tqdm import tqdm

    asked, reference, real = comparison.asked, comparison.reference, comparison.real
    if real is None:
        value = frechet_distance(*reference.moments, *moments(judged.features))
        figures = {comparison.frechet: compare.Figure(value, *[np.nan] * 3, "lower")}
        notes = ["the reference holds statistics alone: no other metric"]
    else:
        table = comparison.table(judged)
        with tqdm(total=len(table), desc="metrics", leave=False) as bar:
            figures, notes = compare.compare(
                table, real, judged, asked["groups"], lambda name: bar.update()
            )
    if asked["paired"]:
        figures |= compare.reconstruction(samples.images, reference.images)
    if asked["export"] and real is not None:
        mu, sigma = moments(real.features)
        with open(asked["export"], "wb") as file:
            names = {"features": comparison.extractor.name, "num": len(real.features)}
            np.savez(file, mu=mu, sigma=sigma, **names)
    if len(judged.features) < compare.ENOUGH:
        notes.append(
            f"{len(judged.features):,} samples are fewer than {compare.ENOUGH:,}: the Frechet "
            "distance is biased upwards; the extrapolated one beside it is less so"
        )
    return figures, notes


def likelihoods(comparison, run, samples, extras):
    """Bits per dimension of real images, a figure; those of samples are for the report."""
    from tqdm import tqdm

    asked, reference = comparison.asked, comparison.reference
    rows = np.random.default_rng(0).permutation(len(reference.images))[: asked["likelihood"]]
    count = min(asked["likelihood"], len(samples.images))
    labels = (None if side.labels is None else side.labels for side in (reference, samples))
    of_real, of_samples = labels
    with tqdm(total=len(rows) + count, desc="bits/dim", leave=False) as bar:
        real = bits.bits_per_dim(
            run,
            reference.images[rows],
            None if of_real is None else of_real[rows],
            asked["seed"],
            bar.update,
        )
        extras["bits"] = bits.bits_per_dim(
            run,
            samples.images[:count],
            None if of_samples is None else of_samples[:count],
            asked["seed"],
            bar.update,
        )
    own = "" if asked["reference"] else "training "
    return {f"bits/dim of {len(real):,} {own}images": bits.figure(real)}


def describe(comparison, samples, run, notes):
    """Everything that a reader needs to place the figures and to make them again."""
    import diffjax

    asked, extractor = comparison.asked, comparison.extractor
    groups = asked["groups"]
    best = kept.recorded(run.workdir) if run else None
    return {
        "version": diffjax.__version__,
        "commit": commit(),
        "seed": asked["seed"],
        "training_seed": run.experiment.seed if run else None,
        "weights": run.name if run else None,
        "best": best._asdict() if best and best.step >= 0 else None,
        "features": {
            "name": extractor.name,
            "fingerprint": extractor.fingerprint,
            "canonical": extractor.canonical,
        },
        "samples": described(samples),
        "reference": described(comparison.reference),
        "interval": compare.INTERVAL.format(groups=groups) if groups else "none",
        "floor": "a part of the reference against the rest of it",
        "notes": notes,
    }


def write(comparison, samples, judged, out, record, extras):
    """The files and the table."""
    (out / "metrics.json").write_text(json.dumps(without_nan(record), indent=2) + "\n")
    print_table(record)
    print(f"written: {out / 'metrics.json'}")
    if comparison.asked["report"]:
        from diffjax.evaluation.report import Extras, write_report

        sides_of = (samples, comparison.reference, judged, comparison.real)
        for path in write_report(out, record, *sides_of, Extras(**extras)):
            print(f"written: {path}")


def print_table(record):
    """The figures as a table, with everything a reader needs to place them."""
    print(f"features: {record['features']['name']}")
    for side in ("samples", "reference"):
        print(f"{side}: {record[side]['num']:,} images of {record[side]['name']}")
    print(f"interval: {record['interval']}")
    width = max(map(len, record["metrics"]))
    print(f"{'':{width}}  {'value':>10}  {'interval':>23}  {'floor':>10}  better")
    for name, figure in record["metrics"].items():
        interval = "-" if figure["low"] is None else f"{figure['low']:.4g} to {figure['high']:.4g}"
        floor = "-" if figure["floor"] is None else f"{figure['floor']:.4g}"
        row = f"{figure['value']:>10.4g}  {interval:>23}  {floor:>10}  {figure['better']}"
        print(f"{name:{width}}  {row}")
    for row in record["judgements"]:
        what = "taken for real" if row["real"] else f"preferred to {row['other']}"
        print(
            f"judged: {what} in {100 * row['value']:.0f}% of {row['num']} pairs "
            f"({100 * row['low']:.0f}% to {100 * row['high']:.0f}%)"
        )
    for note in record["notes"]:
        print(f"note: {note}")


def described(side):
    """Name, number of images and fingerprint of a side."""
    return {"name": side.name, "num": len(side.images), "fingerprint": side.fingerprint}


def plain(figure):
    """A figure as JSON: null where there is no number."""
    return without_nan(figure._asdict())


def without_nan(value):
    """The same JSON with null in place of nan."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if value != value else value


def commit() -> str:
    """The commit of this code, or "unknown"."""
    done = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    from diffjax.run import start

    start.run(main)
