"""LoRA, LoRA+, DoRA and LoRA-GA at equal steps: Fashion-MNIST by a network of digits.

    python train.py && python -m diffjax.data.prepare fashion_mnist
    python benchmarks/lora.py --base runs/digits --out docs/lora

Writes OUT.json and OUT.png: the loss of test images, with the same noise for all, against steps.
Every method runs at every learning rate; what OUT.json has already is kept.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffjax import data, parallel, recipe
from diffjax.recipe.fine_tuning import with_lora
from diffjax.run.state import initial_state, training_loss
from diffjax.run.weights import load_frozen
from diffjax.training import make_train_step

WAYS = {
    "LoRA": {"method": "lora"},
    "LoRA-GA": {"method": "lora_ga"},
    "DoRA": {"method": "dora"},
    "LoRA+ (8)": {"method": "lora", "b_rate": 8.0},
}
RATES = ("0.003", "0.01")


def source(split):
    """Fashion-MNIST at the size of the digits."""
    return data.tfds("fashion_mnist", split, size=8)


def runner(base, way, rank, examples):
    """(seed, rate, steps, every) -> [(step, loss of the test images)] of one way."""
    train, mesh = recipe.cosine_adam(batch_size=32), parallel.make_mesh()
    given = recipe.low_rank(rank=rank, layers="all", **way)
    e = with_lora(base, given, train, lambda: examples)
    frozen = load_frozen({**e.model.frozen, **e.frozen}, mesh)
    adam = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
    plus = optax.masked(optax.scale(given.b_rate), lambda t: jax.tree_util.tree_map_with_path(
        lambda path, leaf: path[-1].key == "b", t))  # fmt: skip
    e = e._replace(optimizer=optax.chain(optax.clip_by_global_norm(1.0), adam, plus))
    loss, test = training_loss(e), data.batches(source("test"), 512, workers=0)
    test = data.arrays_of(next(iter(test)))
    step = jax.jit(make_train_step(loss, e.optimizer, e.averages), donate_argnums=0)
    start = jax.jit(lambda key, frozen: initial_state(e, key, frozen))
    judge = jax.jit(lambda p, frozen: loss(p, jax.random.key(7), test, frozen)[0])

    def run(seed, rate, steps, every):
        state = start(jax.random.key(seed), frozen)
        state.opt_state[1].hyperparams["learning_rate"] = jax.numpy.float32(rate)
        batches = map(data.arrays_of, data.batches(examples, e.batch_size, seed, workers=0))
        found = [(0, float(judge(state.params, frozen)))]
        for i, batch in enumerate(itertools.islice(batches, steps), 1):
            state, _ = step(state, jax.random.key(seed), batch, frozen)
            if i % every == 0:
                found.append((i, float(judge(state.params, frozen))))
        return found

    return run


def best(way):
    """The learning rate whose last loss has the least median over seeds."""
    return min(way, key=lambda rate: np.median([curve[-1][1] for curve in way[rate]]))


def plot(found, path):
    """Median and range over seeds of every way, at its best learning rate and at the others."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, (name, way) in enumerate(found["ways"].items()):
        for rate, curves in way.items():
            steps, losses = np.array(curves)[0, :, 0], np.array(curves)[:, :, 1]
            chosen = rate == best(way)
            style = {"color": f"C{i}", "linestyle": "-" if chosen else ":"}
            axes.plot(steps, np.median(losses, 0), label=f"{name}, rate {rate}", **style)
            if chosen:
                axes.fill_between(steps, losses.min(0), losses.max(0), alpha=0.2, color=f"C{i}")
    axes.set(xlabel="step", ylabel="loss of test images", yscale="log")
    axes.set_title(f"Fashion-MNIST 8x8 from digits, rank {found['rank']}, {found['seeds']} seeds")
    axes.legend()
    figure.savefig(path, dpi=120)


def main():
    """Run what is not in OUT.json yet, and draw all that is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="runs/digits")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", default=[*WAYS], choices=[*WAYS])
    parser.add_argument("--rates", nargs="*", default=RATES)
    parser.add_argument("--out", type=Path, default=Path("docs/lora"))
    a = parser.parse_args()
    file, began = a.out.with_suffix(".json"), time.process_time()
    found = {"rank": a.rank, "seeds": a.seeds, "ways": {}}
    found = json.loads(file.read_text()) if file.is_file() else found
    examples = source("train")
    for name in a.ways:
        way, run = found["ways"].setdefault(name, {}), None
        for rate in (rate for rate in a.rates if rate not in way):
            run = run or runner(a.base, WAYS[name], a.rank, examples)
            curves = [run(seed, float(rate), a.steps, a.every) for seed in range(a.seeds)]
            way[rate] = curves
            minutes = (time.process_time() - began) / 60
            print(name, rate, [c[-1][1] for c in curves], f"{minutes:.1f} CPU minutes", flush=True)
            file.write_text(json.dumps(found) + "\n")
    plot(found, a.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
