"""Compare samples with real images: `python -m diffjax.evaluate SAMPLES [--reference REAL]`.

Either side is a folder of images, an .npz, tfds:NAME (or tfds:NAME:SPLIT) or a workdir of train.py.
A workdir is code (its config.py runs): evaluate only those you trust.
"""

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffjax.errors import InputError
from diffjax.evaluation import classifier, compare, features, sides
from diffjax.evaluation.frechet import frechet_distance, moments
from diffjax.run import flags as f


def flags(
    reference: str | None = None,
    features: str | None = None,
    num: int = 2000,
    seed: int = 0,
    out: Path | None = None,
    groups: int = 10,
    export: Path | None = None,
    paired: bool = False,
    report: bool = True,
):
    """Flags of an evaluation.

    Args:
      reference: real images; default the data that the workdir was trained on.
      features: pixels, pca, classifier (trained on the reference's labels), efficientnet, or a
        file of FID's Inception weights; default classifier where there are labels, else pca.
      num: samples to draw from a workdir; of other sides all are read.
      seed: of the draws.
      out: folder for metrics.json, report.html and the cache; default the workdir, or
        evaluation beside the samples.
      groups: of the jackknife that intervals come from; 0 for none.
      export: npz for the reference's statistics, mu and sigma, as other evaluators read them.
      paired: sample i is the reconstruction of reference image i: PSNR and SSIM as well, and
        the Frechet distance is that of reconstructions, rFID.
      report: write report.html, which needs pip install diffjax[report].
    """


def main(argv: Sequence[str]) -> None:
    """Read both sides, compare them, print the table, and write metrics.json and the report."""
    argv = list(argv)
    given = argv.pop(0) if argv and not argv[0].startswith("-") else None
    (asked,) = f.parse("python -m diffjax.evaluate SAMPLES", __doc__, [flags], argv)
    if given is None:
        raise InputError("give the samples, as in `python -m diffjax.evaluate runs/digits`.")
    f.at_least_one(asked, ("num",))
    if asked["groups"] < 0 or asked["groups"] == 1:
        raise InputError(f"--groups must be 0 or at least 2; got {asked['groups']}.")
    command = shlex.join(["python", "-m", "diffjax.evaluate", given, *argv])
    workdir = Path(given) if (Path(given) / "config.py").is_file() else None
    out = asked["out"] or workdir or Path(given.replace(":", "-")).parent / "evaluation"
    reference, samples = read_sides(given, workdir, asked, out / "evaluation")
    evaluate(samples, reference, asked, out, command)


def read_sides(given, workdir, asked, cache):
    """Both sides, checked against each other."""
    from tqdm import tqdm

    if workdir is None and asked["reference"] is None:
        raise InputError(f"--reference is needed: {given} is no workdir, which names its data.")
    if asked["reference"]:
        reference = sides.read(asked["reference"], asked["num"], asked["seed"], cache)
    else:
        reference = sides.training_data(workdir)
    with tqdm(total=asked["num"], desc="sampling", leave=False, disable=workdir is None) as bar:
        samples = sides.read(given, asked["num"], asked["seed"], cache, bar.update)
    sides.check_pair(samples, reference)
    return reference, samples


def choose_features(name: str | None, reference: sides.Side, cache: Path) -> features.Features:
    """The extractor that --features names.

    Raises:
      InputError: there is none of that name, or it needs what is missing.
    """
    labelled = reference.labels is not None
    name = name or ("classifier" if labelled else "pca")
    if features.is_weights(name):
        return features.inception_features(name)
    if name == "efficientnet":
        return features.efficientnet_features()
    if reference.moments is not None:
        raise InputError("statistics alone can be met with FID's weights: --features FILE.")
    if name == "pixels":
        return features.pixels()
    if name == "pca":
        return features.principal_components(reference.images)
    if name != "classifier":
        raise InputError(
            f"--features must be pixels, pca, classifier, efficientnet or a file of weights; "
            f"got {name!r}."
        )
    if not labelled:
        raise InputError(f"--features classifier needs labels, which {reference.name} lacks.")
    file = cache / f"classifier-{reference.fingerprint}.npz"
    if not file.is_file():
        print("training a classifier of the reference, once")
        count = int(reference.labels.max()) + 1
        trained = classifier.train_classifier(reference.images, reference.labels, count)
        classifier.save_classifier(file, trained)
    label = f"classifier trained on {reference.name}"
    return classifier.classifier_features(classifier.load_classifier(file), label)


def sets_of(side: sides.Side, extractor: features.Features, cache: Path) -> compare.Sets:
    """Features and logits of a side, kept in the cache in pieces."""
    from tqdm import tqdm

    parts, size = [], 1000
    bar = tqdm(total=len(side.images), desc="features", leave=False)
    for first in range(0, len(side.images), size):
        mark = f"features-{side.fingerprint}-{extractor.fingerprint}-{first}.npz"
        images = side.images[first : first + size]
        if not (cache / mark).is_file():
            found = {"features": extractor.function(images)}
            if extractor.logits:
                found["logits"] = extractor.logits(images)
            with open(cache / f"{mark}.part", "wb") as file:
                np.savez(file, **found)
            (cache / f"{mark}.part").rename(cache / mark)
        with np.load(cache / mark) as file:
            parts.append(dict(file))
        bar.update(len(images))
    bar.close()
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return compare.Sets(joined["features"], joined.get("logits"), side.labels)


def evaluate(samples, reference, asked, out, command):
    """The comparison itself, its files and its table."""
    from tqdm import tqdm

    cache = out / "evaluation"
    cache.mkdir(parents=True, exist_ok=True)
    extractor = choose_features(asked["features"], reference, cache)
    frechet = "FID" if extractor.canonical else "Frechet distance"
    frechet = f"r{frechet}" if asked["paired"] and extractor.canonical else frechet
    judged = sets_of(samples, extractor, cache)
    if reference.moments is not None:
        value = frechet_distance(*reference.moments, *moments(judged.features))
        figures = {frechet: compare.Figure(value, np.nan, np.nan, np.nan, "lower")}
        notes, real = ["the reference holds statistics alone: no other metric"], None
    else:
        real = sets_of(reference, extractor, cache)
        table = compare.metrics_of(frechet, real, judged)
        with tqdm(total=len(table), desc="metrics", leave=False) as bar:
            figures, notes = compare.compare(
                table, real, judged, asked["groups"], lambda name: bar.update()
            )
    if asked["paired"]:
        figures |= compare.reconstruction(samples.images, reference.images)
    if asked["export"] and real is not None:
        mu, sigma = moments(real.features)
        with open(asked["export"], "wb") as file:
            np.savez(file, mu=mu, sigma=sigma, features=extractor.name, num=len(real.features))
    if len(judged.features) < compare.ENOUGH:
        notes.append(
            f"{len(judged.features):,} samples are fewer than {compare.ENOUGH:,}: the Frechet "
            "distance is biased upwards; the extrapolated one beside it is less so"
        )
    record = {
        "command": command,
        "commit": commit(),
        "seed": asked["seed"],
        "features": {
            "name": extractor.name,
            "fingerprint": extractor.fingerprint,
            "canonical": extractor.canonical,
        },
        "samples": described(samples),
        "reference": described(reference),
        "interval": compare.INTERVAL.format(groups=asked["groups"]) if asked["groups"] else "none",
        "floor": "a part of the reference against the rest of it",
        "metrics": {name: plain(figure) for name, figure in figures.items()},
        "notes": notes,
    }
    (out / "metrics.json").write_text(json.dumps(record, indent=2) + "\n")
    print_table(record)
    print(f"written: {out / 'metrics.json'}")
    if asked["report"]:
        from diffjax.evaluation.report import write_report

        for path in write_report(out, record, samples, reference, judged, real):
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
    for note in record["notes"]:
        print(f"note: {note}")


def described(side):
    """Name, number of images and fingerprint of a side."""
    return {"name": side.name, "num": len(side.images), "fingerprint": side.fingerprint}


def plain(figure):
    """A figure as JSON: null where there is no number."""
    return {k: None if v != v else v for k, v in figure._asdict().items()}


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
