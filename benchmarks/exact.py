"""Everything against its exact answer, in one table: `python benchmarks/exact.py`.

    python benchmarks/exact.py --only samplers likelihood --num 1024
    python benchmarks/exact.py --outside mine.py:sampler      # or an ONNX file
    python benchmarks/exact.py --write plms.onnx --sampler plms --num 1024     # with jax2onnx

Data are a mixture of two normal laws in one dimension, where the flow, the law and the likelihood
are known (tests/oracles.py): weights 0.6 and 0.4, means -1 and 1.2, deviations 0.3 and 0.5.
Samplers that draw no noise are compared with the flow map, F_0^-1(F_T(x)), by the root mean
square; the others with the law, by the mean distance of sorted samples to its quantiles, whose
floor is that of as many exact samples. Flow maps are given exactly, and must be exact in any number
of steps. Few-step methods are those of benchmarks/few_step.py, trained for --evaluations. Guidance
is between N(1, 1/4) and N(0, 1) at scale 2: against the tilted law N(8/7, 1/7), which only the
corrected draw has, and the deviation 1/4 of the flow that is guided. For inverse methods the exact
answer is that of benchmarks/inverse.py, its first table.

An outside sampler is a Python function (denoise, x, sigmas) -> x0 of NumPy arrays, with
denoise(x, sigma) the exact E[x0 | x] at x = x0 + sigma eps; or an ONNX file whose graph holds that
denoiser and turns `x` (B, 1), noise of deviation 80, into samples.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffjax import distill, grids, guidance, likelihood, prior_sample, sample, samplers, schedules
from diffjax.run.flags import constructors
from diffjax.samplers.info import sampler_info
from diffjax.types import Prediction, Sampler

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import Mixture, draw, exact_denoiser, gaussian, log_density, mixture_flow

MIXTURE = Mixture(np.array([0.6, 0.4]), np.array([[-1.0], [1.2]]), np.array([0.3, 0.5]))
SCHEDULE, CALLS = schedules.edm(), (8, 32)
DENOISER = exact_denoiser(MIXTURE, SCHEDULE)
LINE, GIVEN, NULL, SCALE = schedules.rectified_flow(), (1.0, 0.5), (0.0, 1.0), 2.0


def problem(num):
    """Noise, where the flow leads it, and the mean distance that two sets of exact samples have."""
    x = prior_sample(jax.random.key(0), SCHEDULE, (num, 1))
    target = mixture_flow(MIXTURE, SCHEDULE, x, SCHEDULE.t_max, 0.0)
    return x, target, to_law(draw(jax.random.key(1), MIXTURE, num))


def to_law(x):
    """Mean distance of sorted samples to sorted exact ones, of which there are 64 times as many."""
    many = np.sort(np.asarray(draw(jax.random.key(2), MIXTURE, 64 * len(x)))[:, 0])
    quantiles = many.reshape(len(x), 64).mean(1)
    return float(np.mean(np.abs(np.sort(np.asarray(x)[:, 0]) - quantiles)))


def rms(x, target):
    """Root mean square of the difference."""
    return float(np.sqrt(np.mean((np.asarray(x, float) - np.asarray(target, float)) ** 2)))


def of_samplers(arguments):
    """Every sampler with its defaults at 8 and 32 calls, where it can spend half of them."""
    x, target, floor = problem(arguments.num)
    yield "samplers", "exact samples", "law", [floor] * len(CALLS)
    known = constructors(samplers, Sampler)
    for name, make in tqdm(sorted(known.items()), disable=None):
        sampler = make(SCHEDULE)
        calls = sampler_info(make).calls or (lambda n: n)
        steps = [max((n for n in range(1, c + 1) if calls(n) <= c), default=1) for c in CALLS]
        spent = [calls(n) >= c / 2 for n, c in zip(steps, CALLS, strict=True)]
        if not any(spent):
            continue
        run = jax.jit(lambda x, ts, s=sampler: sample(jax.random.key(3), DENOISER, s, x, ts))
        law = sampler.draws and sampler.stochastic
        kind, error = ("law", to_law) if law else ("map", lambda x: rms(x, target))
        errors = [
            error(run(x, grids.karras(SCHEDULE, n))) if enough else np.nan
            for n, enough in zip(steps, spent, strict=True)
        ]
        yield "samplers", name, kind, errors


def of_flow_maps(arguments):
    """The exact flow map through the samplers of flow maps and of consistency functions."""
    x, target, _ = problem(arguments.num)
    move = lambda x, t, s, cond: mixture_flow(MIXTURE, SCHEDULE, x, t, s)  # noqa: E731
    denoiser = distill.as_denoiser(SCHEDULE, move, DENOISER)
    for gamma in (0.0, 0.5, 1.0):
        made = distill.flow_map_sampler(SCHEDULE, gamma)
        run = jax.jit(lambda x, ts, s=made: sample(jax.random.key(4), denoiser, s, x, ts))
        found = [run(x, grids.karras(SCHEDULE, n)) for n in (1, 4)]
        kind, error = ("map", lambda x: rms(x, target)) if gamma == 0 else ("law", to_law)
        yield "flow maps, 1 and 4 steps", f"gamma {gamma}", kind, [error(value) for value in found]


def of_likelihood(arguments):
    """The log-density of the probability flow at 8 and 32 steps of RK4, per sample."""
    x = draw(jax.random.key(5), MIXTURE, 256)
    wanted = log_density(MIXTURE, x, 1.0, SCHEDULE.t_min)
    found = []
    for n in CALLS:
        ts = grids.karras(SCHEDULE, n + 1)[:-1]
        given = jax.random.key(6), DENOISER, SCHEDULE, x, ts
        density = likelihood.ode_log_density(*given, probes=likelihood.exact).log_density
        found.append(rms(density, wanted))
    yield "likelihood, nats", "probability flow, RK4", "value", found


def of_few_step(arguments):
    """Every method of benchmarks/few_step.py, trained, in the steps that it has."""
    import few_step

    for name, errors in few_step.run(arguments.evaluations).items():
        yield "few steps, 1 and 4", name, "map or law", [errors[0], errors[2]]


def pair_of_laws(x, t, cond):
    """E[x0 | x_t] of `GIVEN` where the label is 0, and of `NULL`, mean and deviation."""
    laws = [exact_denoiser(gaussian([m], s), LINE)(x, t, None).x0 for m, s in (GIVEN, NULL)]
    return Prediction(jnp.where(cond["label"][:, None] == 0, *laws))


def to_tilted(x):
    """Mean distance of sorted samples to the quantiles of the tilted law."""
    from scipy.stats import norm

    ranks = (np.arange(len(x)) + 0.5) / len(x)
    quantiles = norm.ppf(ranks, 8 / 7, (1 / 7) ** 0.5)
    return float(np.mean(np.abs(np.sort(np.asarray(x)[:, 0]) - quantiles)))


def of_guidance(arguments):
    """Rules on a pair of Gaussian laws: the flow that is guided, and the law that is meant."""
    first, second = jax.random.split(jax.random.key(7))
    num = arguments.num
    x, cond = jax.random.normal(first, (num, 1)), {"label": jnp.zeros(num, int)}
    null, heun, grid = {"label": 1}, samplers.heun(LINE), lambda n: jnp.linspace(1, 0, n + 1)
    free = guidance.classifier_free(pair_of_laws, SCALE, null)
    limited = guidance.interval(free, pair_of_laws, LINE, 0.2, 2.0)
    both = guidance.pair(pair_of_laws, null)
    drawn = {
        "classifier-free": lambda n: sample(second, free, heun, x, grid(n // 2), cond),
        "in an interval": lambda n: sample(second, limited, heun, x, grid(n // 2), cond),
        "corrected": lambda n: guidance.corrected(second, LINE, both, SCALE, x, grid(n), cond).x,
    }
    floor = to_tilted(8 / 7 + (1 / 7) ** 0.5 * jax.random.normal(second, (num, 1)))
    yield "guidance", "exact samples", "tilted law", [floor] * len(CALLS)
    for name, draw_in in drawn.items():
        found = [jax.jit(draw_in, static_argnums=0)(n) for n in CALLS]
        yield "guidance", name, "tilted law", [to_tilted(value) for value in found]
        if name == "classifier-free":
            wide = float(jnp.std(x))
            off = [abs(float(jnp.std(value)) / wide - 0.25) for value in found]
            yield "guidance", name, "deviation of its flow", off


def of_outside(what, num):
    """A sampler of another library on the same noise."""
    x, target, floor = problem(num)
    found = [outside(what, np.asarray(x), n) for n in CALLS]
    yield "outside", "exact samples", "law", [floor] * len(CALLS)
    yield "outside", what, "map", [rms(value, target) for value in found]
    yield "outside", what, "law", [to_law(value) for value in found]


def outside(what, x, n):
    """Samples of `file.py:function` or of an ONNX file."""
    if what.endswith(".onnx"):
        import onnxruntime

        return onnxruntime.InferenceSession(what).run(None, {"x": x.astype(np.float32)})[0]
    path, name = what.rsplit(":", 1)
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = jax.jit(lambda x, sigma: DENOISER(x, sigma, None).x0)
    denoise = lambda x, sigma: np.asarray(run(jnp.asarray(x), sigma))  # noqa: E731
    return getattr(module, name)(denoise, x, np.asarray(grids.karras(SCHEDULE, n)))


def write(path, name, n, num):
    """An ONNX file of `x` (num, 1): a sampler without noise in n steps, on the exact denoiser."""
    import jax2onnx

    made, ts = getattr(samplers, name)(SCHEDULE), grids.karras(SCHEDULE, n)
    none = jnp.zeros((n, made.draws, num, 1))
    run = lambda x: sample(jax.random.key(3), DENOISER, made, x, ts, noise=none)  # noqa: E731
    given = [jax.ShapeDtypeStruct((num, 1), jnp.float32)]
    jax2onnx.to_onnx(run, given, input_names=["x"], return_mode="file", output_path=path)


def of_inverse(arguments):
    """The table of benchmarks/inverse.py of one number measured of one number."""
    import inverse

    inverse.scalar_table()
    return ()


PARTS = {
    "samplers": of_samplers,
    "flow_maps": of_flow_maps,
    "likelihood": of_likelihood,
    "guidance": of_guidance,
    "few_step": of_few_step,
    "inverse": of_inverse,
}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--outside", help="file.py:function, or an ONNX file")
    parser.add_argument("--num", type=int, default=4096, help="samples of each row")
    parser.add_argument("--evaluations", type=int, default=12_000, help="few-step training")
    parser.add_argument("--write", help="an ONNX file to make of --sampler in --steps, and no more")
    parser.add_argument("--sampler", choices=constructors(samplers, Sampler), default="plms")
    parser.add_argument("--steps", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.write:
        return write(arguments.write, arguments.sampler, arguments.steps, arguments.num)
    if arguments.outside:
        parts = [lambda _: of_outside(arguments.outside, arguments.num)]
    else:
        parts = [PARTS[name] for name in arguments.only]
    print(f"| part | what | against | {CALLS[0]} calls | {CALLS[1]} calls |\n|---|---|---|---|---|")
    for part in parts:
        for group, name, against, errors in part(arguments):
            text = " | ".join(
                "" if error is None or np.isnan(error) else f"{error:.2e}" for error in errors
            )
            print(f"| {group} | {name} | {against} | {text} |", flush=True)


if __name__ == "__main__":
    main()
