"""Find the best sampler and times for few calls: `python -m diffjax.tune WORKDIR --calls 6`.

Samplers of one call per step are tried on several grids, then times are learned for the best of
them, together with decoupled ones. Each is compared with a fine solution from the same noise. The
best is kept in the workdir, and `python sample.py WORKDIR --steps 6` uses it. What was tried is
kept too: the same command goes on where it was stopped. A workdir is code: tune those you trust.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from diffjax.errors import InputError

SAMPLERS = ("ddim", "dpmpp_2m", "unipc", "deis", "lms")
GRIDS = ("trailing", "karras", "uniform_logsnr", "vp_uniform", "align_your_steps")
FINE = 64  # steps of Heun's method


def flags(
    calls: tuple[int, ...] = (6,),
    num: int = 256,
    learn_steps: int = 60,
    learn_num: int = 64,
    learning_rate: float = 0.1,
    guidance_scale: float | None = None,
    seed: int = 0,
    step: int | None = None,
    pretrained: Path | None = None,
):
    """Flags.

    Args:
      calls: numbers of calls of the denoiser to tune for; guidance does not count twice.
      num: samples by which candidates are compared.
      learn_steps: steps of learning of times; 0 learns none.
      learn_num: other samples that times are learned from.
      learning_rate: of that.
      guidance_scale: 1 is no guidance; default the model's.
      seed: of the noise.
      step: step of the checkpoint; default the newest that is intact.
      pretrained: folder of published weights, in place of a workdir.
    """


class Problem(NamedTuple):
    """What candidates are compared on.

    Attributes:
      schedule: the noise schedule.
      denoiser: params -> denoiser, guided.
      params: its parameters.
      x: noise.
      cond: conditions, or None.
      target: the fine solution from x.
    """

    schedule: Any
    denoiser: Callable
    params: Any
    x: Any
    cond: Any
    target: Any


def main(argv):
    """Read the flags, and tune for each number of calls."""
    from diffjax import parallel
    from diffjax.run import flags as f
    from diffjax.run import start, tuned
    from diffjax.run.opening import open_model
    from diffjax.run.weights import fingerprint, load_frozen

    argv = [*argv]
    workdir = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    asked, compiled = f.parse("diffjax.tune", __doc__, [flags, start.compiled], argv)
    start.compiled(**compiled)
    start.check_platform()
    check(asked)
    folder = workdir or asked["pretrained"]
    model, weights = open_model(workdir, asked["pretrained"], None)
    if model is None:
        raise InputError("give the workdir of a trained model, or --pretrained FOLDER.")
    check_model(model)
    mesh = parallel.make_mesh()
    params, named = weights(mesh, asked["step"], None, print)
    scale = asked["guidance_scale"] or model.sampling.guidance_scale
    setting = {"weights": fingerprint(params), "guidance_scale": scale}
    setting |= {name: asked[name] for name in ("num", "seed")}
    record = tuned.read(folder)
    if record["setting"] != setting:
        record = {"setting": setting, "tried": {}}
    print(
        f"{named}, guidance scale {scale:g}: error is the root mean square to {FINE} steps of heun"
    )
    opened = model, params, load_frozen(model.frozen, mesh), scale
    given = problems(*opened, asked["seed"], asked["num"], asked["learn_num"])
    for calls in asked["calls"]:
        tune(folder, record, given, calls, asked)


def check(asked: dict[str, Any]) -> None:
    """Refuse numbers that cannot be tuned for."""
    from diffjax.run import flags as f

    f.at_least_one(asked, ("num", "learn_num"))
    f.check_seed(asked["seed"])
    if not asked["calls"] or min(asked["calls"]) < 1:
        raise InputError(f"--calls must be at least 1; got {asked['calls']}.")
    if asked["learn_steps"] < 0:
        raise InputError(f"--learn-steps must be at least 0; got {asked['learn_steps']}.")


def check_model(model) -> None:
    """Refuse a model that no solver samples, such as one of jumps."""
    from diffjax import samplers

    usual = model.sampling.sampler
    if getattr(samplers, getattr(usual, "__name__", ""), None) is not usual:
        raise InputError(
            "this model is sampled by jumps of its own, not by a solver of a flow; there is "
            "nothing to tune. Give its teacher."
        )


def problems(model, params, frozen, scale, seed, *nums) -> list[Problem]:
    """A problem of each number of samples, with noise of its own."""
    import jax

    from diffjax import conditioning, grids, samplers
    from diffjax.experiment import guided, unguided
    from diffjax.run.draw import check_guide, conditions_of

    check_guide(model, scale != 1)
    null = conditioning.nulls(model.conditions, frozen)

    def denoiser(params):
        if scale == 1:
            return unguided(model, params, frozen)
        return guided(model, params, scale, null, frozen)

    schedule, found = model.schedule, []
    fine = grids.karras(schedule, FINE).at[0].set(grids.trailing(schedule, 1)[0])

    @jax.jit
    def solve(params, x, cond):
        heun = samplers.heun(schedule)
        return samplers.sample(jax.random.key(0), denoiser(params), heun, x, fine, cond)

    for key, num in zip(jax.random.split(jax.random.key(seed), len(nums)), nums, strict=True):
        x = model.prior(key, schedule, (num, *model.example.shape), 0, fine[0])
        cond = conditioning.encode(model.conditions, frozen, conditions_of(model, num))
        found.append(Problem(schedule, denoiser, params, x, cond, solve(params, x, cond)))
    return found


def tune(folder, record, given, calls: int, asked: dict[str, Any]) -> None:
    """Try what was not tried before, keep each result at once, and print the best."""
    from diffjax.run import tuned

    tried = record["tried"].setdefault(str(calls), [])
    for candidate in candidates(given, calls, asked, tried):
        tried.append(candidate)
        tuned.write(folder, record)
        print(
            f"{calls:4} calls  {candidate.sampler:10} {candidate.source:18}{candidate.error:9.4f}"
        )
    found = tuned.best(record, calls)
    print(f"{calls:4} calls  best: {found.sampler}, {found.source}, {found.error:.4f}", flush=True)


def candidates(given, calls, asked, tried) -> Iterator[Any]:
    """Those that were not tried: all samplers on all grids, then learned and decoupled times."""
    from diffjax import grids, samplers

    compared, learned_from = given
    runs = {name: runner(compared, name) for name in SAMPLERS}
    done = {(c.sampler, c.source) for c in tried}
    for name in SAMPLERS:
        for source in GRIDS:
            if (name, source) not in done:
                ts = getattr(grids, source)(compared.schedule, calls)
                yield measured(runs[name], compared, name, source, ts)
    if calls < 2 or not asked["learn_steps"]:
        return
    best = min((c for c in tried if c.source in GRIDS), key=lambda c: c.error)
    times = {c.source: c for c in tried if c.sampler == best.sampler}
    if "learned" not in times:
        ts, _ = learned(samplers.learn_grid, learned_from, best.sampler, best.times, asked)
        yield measured(runs[best.sampler], compared, best.sampler, "learned", ts)
    if "decoupled" not in times:
        start = min((c for c in tried if not c.offsets), key=lambda c: c.error)
        how = samplers.learn_decoupled_grid
        ts, offsets, _ = learned(how, learned_from, start.sampler, start.times, asked)
        yield measured(runs[start.sampler], compared, start.sampler, "decoupled", ts, offsets)


def runner(problem: Problem, name: str) -> Callable:
    """(params, x, ts, offsets, cond) -> samples of a sampler, compiled for each number of steps."""
    import jax

    from diffjax import samplers

    @jax.jit
    def run(params, x, ts, offsets, cond):
        made = samplers.decoupled(problem.schedule, getattr(samplers, name), offsets)
        return samplers.sample(jax.random.key(0), problem.denoiser(params), made, x, ts, cond)

    return run


def measured(run, problem, name, source, ts, offsets=None):
    """A candidate with its error."""
    import jax.numpy as jnp
    import numpy as np

    from diffjax.run.tuned import Candidate

    shift = jnp.zeros(len(ts) - 1) if offsets is None else offsets
    x = run(problem.params, problem.x, jnp.asarray(ts), shift, problem.cond)
    error = float(jnp.sqrt(jnp.mean((x - problem.target) ** 2)))
    kept = () if offsets is None else tuple(np.asarray(offsets, float).tolist())
    error = error if np.isfinite(error) else float("inf")
    return Candidate(name, tuple(np.asarray(ts, float).tolist()), kept, source, error)


def learned(how: Callable, problem: Problem, name: str, times, asked: dict[str, Any]):
    """What `how` learns, beginning at the times."""
    import jax
    import jax.numpy as jnp

    from diffjax import samplers

    settings = {"steps": asked["learn_steps"], "learning_rate": asked["learning_rate"]}

    def learn(params, x, ts, cond, target):
        given = problem.denoiser(params), getattr(samplers, name)(problem.schedule)
        key = jax.random.key(1)
        return how(key, *given, problem.schedule, ts, x, cond, target, **settings)

    arrays = problem.params, problem.x, jnp.asarray(times), problem.cond, problem.target
    return jax.jit(learn)(*arrays)


if __name__ == "__main__":
    from diffjax.run import start

    start.run(main)
