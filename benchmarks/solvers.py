"""Every solver for equal work: `python benchmarks/solvers.py WORKDIR [--out docs]`.

Root mean square to the fine solution of the probability flow, from the same noise, for a
number of denoiser calls: on exact Gaussian mixtures, and on the digits model of a workdir of
train.py. A solver that cannot spend exactly that number takes the most steps within it.
Stochastic solvers have no such solution: for them the distance of the samples to the data.

Writes solvers.md and solvers.png, and keeps what is measured in solvers.json: a solver that is
there is not measured again, so that a run can go on, or only draw. Needs `diffjax[bench]`.
"""

import argparse
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import solvers_report
from learned_grid import mixture_denoiser
from tqdm import tqdm

from diffjax import grids, prior_sample, sample, samplers, schedules
from diffjax.samplers.learned_grid import descend

CALLS = (5, 8, 10, 15, 20)
LEARNED_CALLS = (5, 6, 8, 10, 15, 20)
GRIDS = (grids.karras, grids.uniform_logsnr, grids.vp_uniform)
ODE = {
    "euler (DDIM)": samplers.euler,
    "heun": samplers.heun,
    "dpm_2": samplers.dpm_2,
    "rk4": samplers.rk4,
    "lms": samplers.lms,
    "plms": samplers.plms,
    "dpm_solver 3": samplers.dpm_solver,
    "dpmpp_2s": samplers.dpmpp_2s,
    "dpmpp_2m": samplers.dpmpp_2m,
    "dpmpp_multistep 3": partial(samplers.dpmpp_multistep, order=3),
    "deis 2": partial(samplers.deis, order=2),
    "deis 3": samplers.deis,
    "unipc 2": partial(samplers.unipc, order=2),
    "unipc 3": samplers.unipc,
}
LEARNED = ("dpmpp_2m", "unipc 3")  # that get a learned grid
# How times are learned, and from there those of sampler and denoiser apart, with smaller steps.
BACKWARD = ({"steps": 300}, {"steps": 300})
# Forward runs only: in many dimensions what is left of the error is samples that end in another
# mode, which have no slope, and a network's backward pass within a loop is slow on a CPU.
FORWARD = (
    {"steps": 150, "gradient": samplers.smoothed(pairs=8)},
    {"steps": 150, "learning_rate": 0.05, "gradient": samplers.smoothed(pairs=8, width=0.05)},
)
BRIEF = (
    {"steps": 60, "learning_rate": 0.2, "gradient": samplers.smoothed(pairs=4)},
    {"steps": 60, "learning_rate": 0.1, "gradient": samplers.smoothed(pairs=4, width=0.1)},
)
SDE_CALLS = (10, 20, 50, 100)
SDE = {
    "ancestral": samplers.ancestral,
    "euler_maruyama": samplers.euler_maruyama,
    "reverse_diffusion": samplers.reverse_diffusion,
    "edm_stochastic": samplers.edm_stochastic,
    "euler_ancestral": samplers.euler_ancestral,
    "dpmpp_2s_ancestral": samplers.dpmpp_2s_ancestral,
    "dpmpp_sde": samplers.dpmpp_sde,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "dpmpp_2m_sde heun": partial(samplers.dpmpp_2m_sde, form="heun"),
    "dpmpp_3m_sde": samplers.dpmpp_3m_sde,
    "sa_solver": samplers.sa_solver,
    "restart": samplers.restart,
    "langevin, 5 steps": partial(samplers.langevin, steps=5),
    "predictor_corrector": samplers.predictor_corrector,
    "dpmpp_2m (an ODE)": samplers.dpmpp_2m,
}


class Problem(NamedTuple):
    """A denoiser with its schedule, and how much to measure.

    Attributes:
      schedule: the noise schedule.
      denoiser: params -> denoiser.
      params: of the denoiser; an argument of everything that is compiled.
      shape: of one sample.
      descents: how `descend` learns times, and then those of sampler and denoiser apart.
      classes: labels to condition on; 0 is none.
      test: samples that errors are of.
      train: samples to learn from.
      fine: steps of Heun's method for the fine solution.
      most: calls beyond which nothing is learned.
      parallel: dimensions beside those of shape in which x_t only changes its length, which is
        the last coordinate of x; see `in_span`.
      learning: the same problem in other coordinates to learn in; None is this one.
    """

    schedule: Any
    denoiser: Callable
    params: Any
    shape: tuple[int, ...]
    descents: tuple[dict[str, Any], dict[str, Any]]
    classes: int = 0
    test: int = 2048
    train: int = 2048
    fine: int = 400
    most: int = 20
    parallel: int = 0
    learning: Any = None

    def noise(self, seed, n):
        """Noise at t_max, and conditions."""
        x = prior_sample(jax.random.key(seed), self.schedule, (n, *self.shape))
        if self.parallel:
            squared = jax.random.chisquare(jax.random.key(~seed), self.parallel, shape=(n,))
            x = x.at[:, -1].set(self.schedule.sigma(self.schedule.t_max) * jnp.sqrt(squared))
        return x, {"label": jnp.arange(n) % self.classes} if self.classes else None

    def run(self, params, sampler, ts, x, cond, seed=0):
        """The samples."""
        return sample(jax.random.key(seed), self.denoiser(params), sampler, x, ts, cond)


# --- problems ---------------------------------------------------------------------------


def tree(dimensions, depth, spread=0.5, decay=0.6):
    """Means of 2^depth modes that part in pairs, each time less far: structure at every scale."""
    rng, means = np.random.default_rng(0), np.zeros((1, dimensions))
    for level in range(depth):
        offset = spread * decay**level * rng.standard_normal((len(means), 2, dimensions))
        means = (means[:, None] + offset).reshape(-1, dimensions)
    return jnp.asarray(means, jnp.float32)


def mixture(schedule, means, std, descents=BACKWARD, **sizes):
    """An exact mixture as a problem."""
    denoiser = lambda m: mixture_denoiser(schedule, m, std)  # noqa: E731
    return Problem(schedule, denoiser, means, means.shape[1:], descents, **sizes)


def in_span(problem):
    """The same mixture in the span of its means, exactly, at a fraction of the work.

    x0_hat is a mean of the modes plus a multiple of x_t - alpha_t that mean: beyond the span x_t
    only changes its length, by the same factor for all samples. So the coordinates are those of
    an orthonormal basis of the span, and that length.
    """
    means = np.asarray(problem.params, np.float64)
    basis, _ = np.linalg.qr(means.T)
    inside = jnp.asarray(np.pad(means @ basis, ((0, 0), (0, 1))), jnp.float32)
    beyond = means.shape[1] - basis.shape[1]
    return problem._replace(params=inside, shape=inside.shape[1:], parallel=beyond)


def images(schedule):
    """64 modes in 3072 dimensions, learned from 8,192 samples in the span of the modes."""
    problem = mixture(schedule, tree(3072, 6), 0.1, FORWARD, train=8192)
    return problem._replace(learning=in_span(problem))


def digits(workdir):
    """The trained model of a workdir, without guidance."""
    from diffjax.experiment import unguided
    from diffjax.run.weights import from_run

    model, load = from_run(workdir)
    classes = sum(condition.classes for condition in model.conditions)
    sizes = {"classes": classes, "test": 64, "train": 128, "fine": 64}
    denoiser, shape = partial(unguided, model), model.example.shape
    return Problem(model.schedule, denoiser, load(), shape, BRIEF, most=10, **sizes)


def plane(schedule):
    """Three modes in the plane, of unequal distances."""
    means = jnp.asarray([[1.5, 0.5], [-1.0, 1.0], [0.0, -1.5]])
    return mixture(schedule, means, 0.3)


def problems(workdir):
    """Name -> how to make it."""
    edm = schedules.edm()
    return {
        "3 modes, 2-D, EDM": lambda: plane(edm),
        "64 modes, 64-D, EDM": lambda: mixture(edm, tree(64, 6), 0.1, FORWARD, train=4096),
        "64 modes, 3072-D, EDM": lambda: images(edm),
        "digits U-Net, cosine": lambda: digits(workdir),
    }


# --- measuring --------------------------------------------------------------------------


@cache
def calls_of_few(make):
    """Calls of 3 and of 4 steps, which those of n steps follow from."""
    schedule = schedules.edm()
    return [samplers.count_calls(make(schedule), grids.karras(schedule, n)) for n in (3, 4)]


def steps_within(make, calls):
    """The most steps that spend at most that many calls, and the calls they spend."""
    three, four = calls_of_few(make)
    n = 3 + (calls - three) // (four - three)
    return n, three + (n - 3) * (four - three)


def rms(a, b):
    """Root mean square of the difference."""
    return jnp.sqrt(jnp.mean((a - b) ** 2))


def measure_ode(problem, rows):
    """Add rows {"solver, grid": {calls: [error, calls spent]}}; yields after each solver."""
    learning = problem.learning or problem
    test = with_solution(problem, *problem.noise(1, problem.test))
    train = with_solution(learning, *learning.noise(2, learning.train))
    missing = [name for name in ODE if f"{name}, karras" not in rows]
    for name in tqdm(missing):
        found = {}
        for calls in LEARNED_CALLS if name in LEARNED else CALLS:
            n, spent = steps_within(ODE[name], calls)
            errors = measure_solver(problem, learning, name, n, spent, test, train)
            for grid, error in errors.items():
                found.setdefault(f"{name}, {grid}", {})[str(calls)] = [float(error), spent]
        rows |= found
        yield


def with_solution(problem, x, cond):
    """Noise, conditions, and the fine solution from there."""
    ts, sampler = grids.karras(problem.schedule, problem.fine), samplers.heun(problem.schedule)
    solve = jax.jit(lambda params, x, cond: problem.run(params, sampler, ts, x, cond))
    return x, cond, solve(problem.params, x, cond)


def errors_of(problem, make):
    """(sampler's learned offsets, ts, x, cond, target) -> root mean square."""

    @jax.jit
    def error(params, offsets, ts, x, cond, target):
        sampler = samplers.decoupled(problem.schedule, make, offsets)
        return rms(problem.run(params, sampler, ts, x, cond), target)

    return partial(error, problem.params)


def measure_solver(problem, learning, name, n, spent, test, train):
    """Errors of one solver in n steps on each grid, and what can be learned."""
    make = ODE[name]
    tables = {grid.__name__: grid(problem.schedule, n) for grid in GRIDS}
    error, error_to_learn = errors_of(problem, make), errors_of(learning, make)
    errors = {grid: error(0.0, ts, *test) for grid, ts in tables.items()}
    if spent > learning.most:
        return errors
    if name in LEARNED:
        start = min(tables.values(), key=lambda ts: error_to_learn(0.0, ts, *train))
        times, (ts, offsets) = learn(learning, make(problem.schedule), start, train)
        errors["learned"] = error(0.0, times, *test)
        errors["decoupled"] = error(offsets, ts, *test)
    if name == "dpm_2":
        fitted = partial(samplers.amed, params=fit_amed(learning, tables["karras"], train))
        errors["amed"] = errors_of(problem, fitted)(0.0, tables["karras"], *test)
    return errors


def learn(problem, sampler, ts, train):
    """Learned times; and from there those of sampler and denoiser apart, with their offsets."""

    @jax.jit
    def times(params, x, cond, target):
        def learned(learner, ts, descent):
            fixed = problem.denoiser(params), sampler, problem.schedule, ts, x, cond, target
            return learner(jax.random.key(0), *fixed, **descent)

        first, then = problem.descents
        coupled, _ = learned(samplers.learn_grid, ts, first)
        *apart, _ = learned(samplers.learn_decoupled_grid, coupled, then)
        return coupled, apart

    return times(problem.params, *train)


def fit_amed(problem, ts, train):
    """Parameters of `amed` fitted to a grid."""

    @jax.jit
    def fit(params, x, cond, target):
        def loss(learned):
            sampler = samplers.amed(problem.schedule, learned)
            return jnp.log(rms(problem.run(params, sampler, ts, x, cond), target))

        start = samplers.Amed(jnp.zeros(len(ts) - 1), jnp.ones(len(ts) - 1))
        return descend(jax.random.key(0), loss, start, **problem.descents[0])[0]

    return fit(problem.params, *train)


def measure_sde(problem, rows, n=8192):
    """Add rows {solver: {calls: [distance, calls spent]}} on a mixture of the plane."""
    schedule = problem.schedule
    which, other = jax.random.split(jax.random.key(3))
    means = problem.params

    def draw(key):
        pick, noise = jax.random.split(key)
        modes = means[jax.random.randint(pick, (n,), 0, len(means))]
        return modes + 0.3 * jax.random.normal(noise, (n, 2))

    data, again = draw(which), draw(other)
    x, _ = problem.noise(4, n)
    rows["exact samples"] = {str(calls): [sliced_distance(again, data), 0] for calls in SDE_CALLS}
    for name in tqdm([name for name in SDE if name not in rows]):
        make = SDE[name]
        for calls in SDE_CALLS:
            steps, spent = steps_within(make, calls)
            if steps < 2:
                continue
            ts = grids.karras(schedule, steps)
            run = jax.jit(lambda m, x, ts, make=make: problem.run(m, make(schedule), ts, x, None))
            distance = sliced_distance(run(means, x, ts), data)
            rows.setdefault(name, {})[str(calls)] = [distance, spent]
        yield


def sliced_distance(a, b, directions=32):
    """Wasserstein-2 of two sets of points of the plane of one size, averaged over directions."""
    angle = np.arange(directions) * np.pi / directions
    along = np.stack([np.cos(angle), np.sin(angle)])
    return float(
        rms(np.sort(np.asarray(a) @ along, axis=0), np.sort(np.asarray(b) @ along, axis=0))
    )


def main():
    """Measure what is not there yet, then write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workdir", type=Path, help="of train.py, such as runs/digits")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    kept = asked.out / "solvers.json"
    results = json.loads(kept.read_text()) if kept.exists() else {}
    work = {name: (measure_ode, make) for name, make in problems(asked.workdir).items()}
    work["SDE"] = measure_sde, lambda: plane(schedules.edm())
    wanted = {name: SDE if name == "SDE" else [f"{row}, karras" for row in ODE] for name in work}
    for name, (measure, make) in work.items():
        rows = results.setdefault(name, {})
        if not set(wanted[name]) <= set(rows):
            print(name)
            for _ in measure(make(), rows):
                kept.write_text(json.dumps(results, indent=1) + "\n")
    solvers_report.write(results, CALLS, SDE_CALLS, asked.out)


if __name__ == "__main__":
    main()
