"""Metrics and Inception features beside torch-fidelity: `python benchmarks/evaluation.py`.

    python benchmarks/evaluation.py [--torch PYTHON] [--num 10000] [--write docs/evaluation.md]

10,000 x 2,048 features a side to FID, KID (100 subsets of 1,000) and precision/recall (k = 3), and
Inception's features of 32 x 32 images. Each part is a process of its own on one core, in turn with
its counterpart, and the least processor time of some rounds counts. Memory is the peak above what
stood before the metrics: the features themselves and the libraries are left out. The weights are
random, with the names and shapes of FID's. PYTHON has torch and torch-fidelity.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import write_between

NAMES = Path(__file__).parents[1] / "tests" / "golden" / "nets" / "fid_inception.json"
BEGIN, END = "<!-- begin speed -->", "<!-- end speed -->"
IMAGES = 64


def features(num):
    """Two sets of features, float32 and above 0 as Inception's, with a spectrum that falls."""
    import numpy as np

    rng = np.random.default_rng(0)
    scale = (1 / np.arange(1, 2049) ** 0.5).astype(np.float32)
    mix = rng.standard_normal((2048, 2048), dtype=np.float32) / 45

    def one(shift):
        x = rng.standard_normal((num, 2048), dtype=np.float32) * scale
        return np.abs(x @ mix + shift)

    return one(np.float32(0)), one(np.float32(0.02))


def diffjax_metrics(num):
    """() -> FID, KID, precision and recall."""
    import numpy as np

    from diffjax import evaluation

    x, y = features(num)
    size = min(1000, num)

    def run():
        rng = np.random.default_rng(0)
        a, b = (np.stack([rng.choice(num, size, False) for _ in range(100)]) for _ in range(2))
        found = evaluation.all_pairs(x, y, 3, a, b)
        return [evaluation.fid(x, y), found.kid_subsets.mean(), found.precision, found.recall]

    return run


def torch_metrics(num):
    """The same of torch-fidelity, in float32."""
    import torch
    from torch_fidelity import metric_fid, metric_kid, metric_prc

    torch.set_num_threads(1)
    x, y = map(torch.from_numpy, features(num))

    def run():
        statistics = [metric_fid.fid_features_to_statistics(s) for s in (x, y)]
        fid = metric_fid.fid_statistics_to_metric(*statistics, False)
        size = min(1000, num)
        kid = metric_kid.kid_features_to_metric(x, y, kid_subset_size=size, verbose=False)
        both = metric_prc.prc_features_to_metric(y, x, verbose=False)
        values = {**fid, **kid, **both}
        names = ("frechet_inception_distance", "kernel_inception_distance_mean")
        return [values[name] for name in (*names, "precision", "recall")]

    return run


def images():
    """Random images (N, 32, 32, 3) uint8."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)


def diffjax_inception(file):
    """() -> mean feature."""
    from diffjax.run import start

    start.choose_platform()  # the flags that every command of the project sets
    from diffjax.evaluation.features import inception_features

    function, x = inception_features(file).function, images()
    function(x)
    return lambda: [float(function(x).mean())]


def torch_inception(file):
    """The same of torch-fidelity."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.set_num_threads(1)
    network = FeatureExtractorInceptionV3("inception", ["2048"], file).eval()
    x = torch.from_numpy(images()).permute(0, 3, 1, 2)

    def run():
        with torch.no_grad():
            return [float(network(x)[0].mean())]

    run()
    return run


PARTS = {
    "metrics": (diffjax_metrics, torch_metrics),
    "inception": (diffjax_inception, torch_inception),
}


def measure(part, which, argument):
    """Processor seconds, seconds and megabytes of one part, as JSON."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    run = PARTS[part][which](int(argument) if part == "metrics" else argument)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = resident()
    cpu, wall = time.process_time(), time.perf_counter()
    values = run()
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps(spent | {"megabytes": peak() - before, "values": values}))


def resident():
    """Resident megabytes now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak():
    """Resident megabytes at most since the mark was cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def random_weights(python, file):
    """Weights with the names and shapes of FID's, written by torch."""
    shapes = json.loads(NAMES.read_text())["parameters"]
    code = (
        "import json, sys, torch\n"
        "g = torch.Generator().manual_seed(0)\n"
        "def make(name, shape):\n"
        "    w = torch.randn(shape, generator=g)\n"
        "    if len(shape) > 1: return w * (2 / w[0].numel()) ** 0.5\n"
        "    return 1 + 0.1 * w.abs() if name.endswith(('weight', 'var')) else 0.1 * w\n"
        "shapes = json.loads(sys.stdin.read())\n"
        "torch.save({k: make(k, s) for k, s in shapes.items()}, sys.argv[1])\n"
    )
    command = [python, "-c", code, str(file)]
    subprocess.run(command, input=json.dumps(shapes), text=True, check=True)


def table(found):
    """Markdown, least processor time and its memory of each side."""
    best = {k: min(v, key=lambda one: one["cpu"]) for k, v in found.items()}
    lines = [
        "| on one core | diffjax | torch-fidelity | ratio |",
        "|---|---:|---:|---:|",
    ]

    def row(name, a, b, unit):
        lines.append(f"| {name} | {a:,.1f}{unit} | {b:,.1f}{unit} | {a / b:.2f} |")

    if ("metrics", 0) in best:
        ours, theirs = best["metrics", 0], best["metrics", 1]
        row("FID + KID + precision/recall, processor time", ours["cpu"], theirs["cpu"], " s")
        row("the same, memory beside the features", ours["megabytes"], theirs["megabytes"], " MB")
    if ("inception", 0) in best:
        a, b = (IMAGES / best["inception", i]["cpu"] for i in (0, 1))
        row("Inception features, images a second", a, b, "")
    return "\n".join(lines)


def in_turn(asked, weights):
    """(part, side) -> what each round measured, in processes of their own."""
    one, found = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}, {}
    for _ in range(asked.rounds):
        for part in asked.parts:
            for which, python in enumerate((sys.executable, asked.torch)):
                argument = str(asked.num if part == "metrics" else weights)
                command = [python, __file__, "--part", part, str(which), argument]
                out = subprocess.run(
                    command, env=os.environ | one, capture_output=True, text=True, check=True
                ).stdout
                found.setdefault((part, which), []).append(json.loads(out.splitlines()[-1]))
                print(part, ("diffjax", "torch")[which], found[part, which][-1], file=sys.stderr)
    return found


def main(argv):
    """Run the parts in turn, print the table, and put it between its marks in a document."""
    if argv[:1] == ["--part"]:
        measure(argv[1], int(argv[2]), argv[3])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--parts", nargs="*", default=list(PARTS))
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random-inception.pth"
        if "inception" in asked.parts:
            random_weights(asked.torch, weights)
        found = in_turn(asked, weights)
    text = table(found)
    print(text)
    if asked.write:
        write_between(asked.write, BEGIN, END, text)


if __name__ == "__main__":
    main(sys.argv[1:])
