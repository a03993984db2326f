"""The law of guided sampling and of its correction: `python benchmarks/guidance_law.py docs`.

Between N(1, 1/4) and N(0, 1) at scale 2, where the tilted law is N(8/7, 1/7). Prints mean,
variance and the fewest effective particles, and writes guidance_law.png.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt

from diffjax import guidance, sample, samplers, schedules
from diffjax.types import Prediction

LINE, SCALE, COUNT, STEPS = schedules.rectified_flow(), 2.0, 20_000, 800


def two(x, t, cond):
    """E[x0 | x_t] of N(1, 1/4) for label 0 and of N(0, 1) for the null label 1."""
    alpha, sigma = LINE.alpha(t), LINE.sigma(t)
    given = cond["label"][:, None] == 0
    mean, variance = jnp.where(given, 1.0, 0.0), jnp.where(given, 0.25, 1.0)
    alpha, sigma = (jnp.broadcast_to(a, x.shape[:1])[:, None] for a in (alpha, sigma))
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    return Prediction(mean + gain * (x - alpha * mean))


def main(folder):
    """Draw by both, print, plot."""
    null, cond = {"label": 1}, {"label": jnp.zeros(COUNT, int)}
    ts, x = jnp.linspace(1, 0, STEPS + 1), jax.random.normal(jax.random.key(0), (COUNT, 1))
    guided = guidance.classifier_free(two, SCALE, null)
    ancestral = samplers.ancestral(LINE)
    key = jax.random.key(1)
    drawn = {
        "guided flow": sample(key, guided, samplers.heun(LINE), x, ts, cond),
        "guided, ancestral": sample(key, guided, ancestral, x, ts, cond),
    }
    both = guidance.pair(two, null)
    exact = guidance.corrected(key, LINE, both, SCALE, x, ts, cond)
    effective = f"{float(exact.effective.min()):,.0f} of {COUNT:,} effective"
    drawn[f"corrected, at least {effective}"] = exact.x
    print("| draw | mean | variance |\n|---|---|---|\n| tilted law | 1.143 | 0.143 |")
    grid = np.linspace(-0.5, 3, 400)
    plt.figure(figsize=(7, 3.2))
    for name, y in drawn.items():
        print(f"| {name} | {float(y.mean()):.3f} | {float(y.var()):.3f} |")
        plt.hist(
            np.asarray(y[:, 0]), 120, range=(-0.5, 3), density=True, histtype="step", label=name
        )
    law = np.exp(-((grid - 8 / 7) ** 2) * 7 / 2) * np.sqrt(7 / (2 * np.pi))
    plt.plot(grid, law, "k", lw=1, label="tilted law p(x|c)² / p(x)")
    plt.legend(fontsize=8)
    plt.xlabel("x")
    plt.tight_layout()
    plt.savefig(Path(folder) / "guidance_law.png", dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
