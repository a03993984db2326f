"""LoRA-GA, LoRA and full fine-tuning by gradient descent: Fashion-MNIST by a network of digits.

    python train.py && python -m diffjax.data.prepare fashion_mnist
    python benchmarks/lora_sgd.py --base runs/digits --out docs/lora_sgd

Momentum 0.9, batches of 32, scale 1, all kernels; every rate for every way and seed. LoRA-GA's
gradient is of 8 further batches. Writes OUT.jsonl, a line a run, what it has already is kept, and
OUT.png: the loss of 512 test images, with the same noise for all, at each way's best rate.
One compiled gradient serves both ways and all ranks: those below 8 are padded by zeros, whose
gradient is zero.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffjax import data, lora
from diffjax.lora.gradient import aligned_lora, since
from diffjax.run.state import training_loss
from diffjax.run.weights import from_run
from diffjax.run.workdir import load_experiment

RANKS, BATCH, FIRST, MARKS = 8, 32, 8, (5, 15, 30, 60)
WAYS = ("LoRA", "LoRA-GA", "full")


def examples(split, count):
    """{"x", "label"} of the first Fashion-MNIST images at the size of the digits."""
    found = data.tfds("fashion_mnist", split, size=8).examples
    rows = [found[i] for i in range(count)]
    x = np.stack([row["x"] for row in rows]) / np.float32(127.5) - 1
    return {"x": x, "label": np.array([row["label"] for row in rows], np.int32)}


def padded(tree):
    """A LoRA of rank 8 at most as one of rank 8."""

    def leaf(path, w):
        widths = [(0, 0)] * w.ndim
        axis = -1 if path[-1] == "a" else -2
        widths[axis] = (0, RANKS - w.shape[axis])
        return jnp.pad(w, widths)

    return unflatten_dict({path: leaf(path, w) for path, w in flatten_dict(tree).items()})


def runner(base):
    """(way, rank, rate, seed) -> losses of the test images at MARKS; inf from where it diverged."""
    experiment, params = load_experiment(base), from_run(base).load()
    model = experiment.model
    frozen = {name: load() for name, load in {**model.frozen, **experiment.frozen}.items()}
    loss, train, test = training_loss(experiment), examples("train", 8000), examples("test", 512)
    sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.9)

    def whole(trained, start):
        return trained if start is None else lora.merge(params, since(trained, start))

    def value(trained, start, key, batch):
        return loss(whole(trained, start), key, batch, frozen)[0]

    gradient, judge = jax.jit(jax.grad(value)), jax.jit(value)
    update = jax.jit(sgd.update)

    def batches(seed, count):
        rows = np.random.default_rng(seed).permutation(len(train["x"]))[: count * BATCH]
        keys = jax.random.split(jax.random.key(seed), count)
        for key, part in zip(keys, rows.reshape(count, BATCH), strict=True):
            yield key, {name: a[part] for name, a in train.items()}

    def start_of(way, rank, seed):
        if way == "LoRA":
            return padded(lora.init(jax.random.key(seed), params, lora.dense_and_conv, rank))
        grads = [gradient(params, None, *given) for given in batches(1000 + seed, FIRST)]
        mean = jax.tree.map(lambda *leaves: sum(leaves) / FIRST, *grads)
        return padded(aligned_lora(mean, lora.dense_and_conv, rank))

    def run(way, rank, rate, seed):
        start = None if way == "full" else start_of(way, rank, seed)
        trained, found = params if start is None else start, []
        state = sgd.init(trained)
        state.hyperparams["learning_rate"] = jnp.float32(rate)
        for i, given in enumerate(batches(seed, max(MARKS)), 1):
            updates, state = update(gradient(trained, start, *given), state, trained)
            trained = optax.apply_updates(trained, updates)
            if i in MARKS:
                found.append(float(judge(trained, start, jax.random.key(7), test)))
                if not found[-1] < 2:
                    break
        return found + [float("inf")] * (len(MARKS) - len(found))

    return run


def table(lines):
    """{(way, rank): {rate: losses (seeds, marks)}} of the file's lines."""
    found = {}
    for way, rank, rate, _, losses in lines:
        found.setdefault((way, rank), {}).setdefault(rate, []).append(losses)
    return found


def best(rates):
    """The rate whose last loss has the least median over seeds."""
    return min(rates, key=lambda rate: np.median(np.array(rates[rate])[:, -1]))


def plot(lines, path):
    """Median and range over seeds, each way at its best rate."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, ((way, rank), rates) in enumerate(table(lines).items()):
        rate = best(rates)
        losses = np.array(rates[rate])
        name = way if way == "full" else f"{way}, rank {rank}"
        axes.plot(MARKS, np.median(losses, 0), "o-", label=f"{name}, rate {rate}", color=f"C{i}")
        axes.fill_between(MARKS, losses.min(0), losses.max(0), alpha=0.2, color=f"C{i}")
    axes.set(xlabel="step of gradient descent", ylabel="loss of test images")
    axes.set_title("Fashion-MNIST 8x8 from digits: median and range of 5 orders of the data")
    axes.legend()
    figure.savefig(path, dpi=120)


def main():
    """Run what OUT.jsonl lacks, and draw all that it has."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", default="runs/digits")
    parser.add_argument("--ways", nargs="*", default=[*WAYS], choices=WAYS)
    parser.add_argument("--ranks", nargs="*", type=int, default=[4])
    parser.add_argument("--rates", nargs="*", type=float, default=[0.03, 0.05, 0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/lora_sgd"))
    a = parser.parse_args()
    file, run = a.out.with_suffix(".jsonl"), None
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    known = {tuple(line[:4]) for line in lines}
    wanted = [(way, rank, rate, seed) for rate in a.rates for way in a.ways
              for rank in ([0] if way == "full" else a.ranks)
              for seed in range(a.seeds)]  # fmt: skip
    for one in (one for one in wanted if one not in known):
        run = run or runner(a.base)
        lines.append([*one, run(*one)])
        print(*lines[-1], flush=True)
        with file.open("a") as out:
            out.write(json.dumps(lines[-1]) + "\n")
    plot(lines, a.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
