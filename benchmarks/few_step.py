"""Few-step methods on a mixture in one dimension: `python benchmarks/few_step.py`.

Every method of benchmarks/few_step_rows.py trains the same network (ResidualMLP of two blocks) and
is compared with the exact flow map F_0^-1(F_1(z)): the root mean square error at 1, 2 and 4 steps.
Where a method learns the law and not the map, or draws new noise between steps, both are sorted
first. Training stops when each has spent as many network evaluations (forward passes; a JVP counts
as two, a gradient as two more). A teacher is the exact denoiser, which is not counted.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).parent))
from few_step_rows import MEANS, STDS, WEIGHTS, methods

from diffjax import distill, models, sample
from diffjax.models import network
from diffjax.parameterization import make_denoiser

BATCH = 256


def data(key, n):
    """n draws (n, 1) of the mixture."""
    which, noise = jax.random.split(key)
    k = jax.random.choice(which, 2, (n,), p=jnp.asarray(WEIGHTS))
    return (jnp.asarray(MEANS)[k] + jnp.asarray(STDS)[k] * jax.random.normal(noise, (n,)))[:, None]


def exact_map(z):
    """F_0^-1(F_1(z)) by bisection, z (n,) standard normal."""
    from scipy.stats import norm

    low, high = np.full(z.shape, -10.0), np.full(z.shape, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        cdf = sum(
            w * norm.cdf((middle - m) / s) for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True)
        )
        low, high = (
            np.where(cdf < norm.cdf(z), middle, low),
            np.where(cdf < norm.cdf(z), high, middle),
        )
    return (low + high) / 2


def train(key, loss, params, steps):
    """Adam with a cosine rate, and the average of the last parameters, in one scan."""
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    def step(carry, key):
        params, ema, state, context = carry
        data_key, loss_key = jax.random.split(key)
        batch = {"x": data(data_key, BATCH)}
        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(
            params, loss_key, batch, frozen={}, **context
        )
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(params, updates)
        ema = jax.tree.map(lambda e, p: 0.995 * e + 0.005 * p, ema, params)
        moved = {**context, **{n: v for n, v in aux.get("context", {}).items() if n in context}}
        return (params, ema, state, moved), None

    context = {"iteration": jnp.asarray(0), "teacher_params": params}
    start = (params, params, optimizer.init(params), context)
    return jax.lax.scan(step, start, jax.random.split(key, steps))[0][1]


def whatever(loss):
    """A loss that may be given what it does not ask for."""
    return lambda *given, frozen=None, iteration=0, teacher_params=None: loss(*given)


def error(method, net, params, z, wanted, n):
    """Root mean square to the exact map, or between sorted draws where only the law is learned."""
    make = distill.two_time_denoiser if method.two_times else make_denoiser
    denoiser = make(net, params, method.schedule, method.parameterization)
    ts = jnp.linspace(method.schedule.t_max, 0.0, n + 1)
    x = sample(jax.random.key(9), denoiser, method.sampler(method.schedule), z[:, None], ts)[:, 0]
    if n not in method.maps:
        x, wanted = jnp.sort(x), jnp.sort(wanted)
    return float(jnp.sqrt(jnp.mean((x - wanted) ** 2)))


def run(evaluations, names=None, width=64):
    """Errors at 1, 2 and 4 steps of each method, None where it is not sampled in so many."""
    module = models.ResidualMLP(width=width, depth=2)
    one, two = network(module), network(models.TwoTimes(module))
    x, t = jnp.zeros((2, 1)), jnp.ones(2)
    z = jnp.asarray(np.random.default_rng(0).standard_normal(4096), jnp.float32)
    wanted = jnp.asarray(exact_map(np.asarray(z, float)), jnp.float32)
    table = {}
    for name, method in methods(one, two, evaluations).items():
        if names is not None and name not in names:
            continue
        net = two if method.two_times else one
        whole = models.TwoTimes(module) if method.two_times else module
        cond = {"until": t} if method.two_times else None
        begun = whole.init(jax.random.key(0), x, t, cond)["params"]
        params = dict.fromkeys(method.players, begun) or begun
        loss = whatever(method.loss) if "flow matching" in name else method.loss
        steps = int(evaluations / method.cost)
        params = jax.jit(partial(train, loss=loss, steps=steps))(jax.random.key(1), params=params)
        params = params[method.players[0]] if method.players else params
        errors = {n: error(method, net, params, z, wanted, n) for n in method.steps}
        table[name] = [errors.get(n) for n in (1, 2, 4)]
        shown = ("" if value is None else f"{value:.4f}" for value in table[name])
        print(f"{name:28}{steps:8}" + "".join(f"{value:>9}" for value in shown), flush=True)
    return table


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--evaluations", type=int, default=24_000, help="of each network")
    arguments = parser.parse_args()
    print(f"{'method':28}{'steps':>8}{'1':>9}{'2':>9}{'4':>9}")
    run(arguments.evaluations, arguments.only)


if __name__ == "__main__":
    main()
