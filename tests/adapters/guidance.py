"""Guidance rules, thresholds and guided runs, as the golden checks call them: float64 numpy."""

from functools import partial, wraps

import jax
import jax.numpy as jnp
import numpy as np

from diffjax import guidance, samplers, schedules
from diffjax.parameterization import predict_eps, predict_x0
from diffjax.types import Prediction


def double(function):
    """The function in double precision, of numpy arrays."""

    @wraps(function)
    def called(*args):
        with jax.enable_x64(True):
            arrays = (jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args)
            return np.asarray(function(*arrays))

    return called


def of_steps(rule):
    """A rule of one step over the leading axis of steps."""
    return double(
        lambda cond, uncond, *numbers: jax.vmap(lambda c, u: rule(c, u, *numbers))(cond, uncond)
    )


@double
def apg(cond, uncond, scale, momentum, limit, eta):
    """The momentum goes from step to step, as in `adaptive_projected_sampler`."""
    rule = partial(guidance.projected_rule, scale=scale, eta=eta, limit=limit or jnp.inf)
    past, out = jnp.zeros_like(cond[0]), []
    for c, u in zip(cond, uncond, strict=True):
        out.append(rule(c, u, past=momentum * past))
        past = c - u + momentum * past
    return jnp.stack(out)


@double
def threshold(x, quantile, maximum=np.inf):
    itself = lambda x, t, cond: Prediction(x)  # noqa: E731
    return guidance.dynamic_threshold(itself, quantile, maximum)(x, jnp.asarray(0.5), None).x0


# --- whole runs on a labelled mixture ---------------------------------------------------


def labelled_mixture(problem, schedule, prefix=""):
    """The exact denoiser of a label's components, and log p(label | x_t); no label is -1."""
    means, stds = problem[prefix + "means"], problem[prefix + "stds"][None]
    classes = np.arange(problem["labels"].max() + 1)
    own = np.concatenate([problem["labels"] == classes[:, None], np.ones((1, len(means)), bool)])
    weights = jnp.where(own, jnp.log(problem["weights"])[None], -jnp.inf)

    def joint(x, t):
        """log of weight and density of each component (B, K), and E[x0 | x_t, component]."""
        alpha, sigma = (jnp.broadcast_to(f(t), x.shape[:1])[:, None] for f in schedule[:2])
        variance = alpha**2 * stds**2 + sigma**2
        rest = x[:, None] - alpha[..., None] * means[None]
        log_density = -jnp.sum(rest**2, -1) / (2 * variance) - x.shape[1] / 2 * jnp.log(variance)
        return log_density, means[None] + (alpha * stds**2 / variance)[..., None] * rest

    def denoiser(x, t, cond):
        log_density, each = joint(x, t)
        share = jax.nn.softmax(log_density + weights[cond["label"]])
        return Prediction(jnp.sum(share[..., None] * each, axis=1))

    def log_prob(x, t, cond):
        log_density, _ = joint(x, t)
        total = jax.nn.logsumexp(log_density + weights[-1:], axis=1)
        return jax.nn.logsumexp(log_density + weights[cond["label"]], axis=1) - total

    return denoiser, log_prob


NULL = {"label": -1}


def draw(case, problem, schedule, ts, sampler, guide, x):
    """x at the end of ts, where `guide` makes the denoiser, or it and a sampler."""
    exact = labelled_mixture(problem, schedule)
    made = guide(case, problem, schedule, exact)
    denoiser, sampler = made if isinstance(made, tuple) else (made, sampler)
    cond, key = {"label": jnp.asarray(problem["y"])}, jax.random.key(0)
    return samplers.sample(key, denoiser, sampler, x, jnp.asarray(ts), cond)


def run(make):
    """A run of the golden checks from (case) -> (schedule, ts, sampler, first x over z)."""

    def of(guide):
        def called(case, problem):
            with jax.enable_x64(True):
                schedule, ts, sampler, size = make(case)
                x = jnp.asarray(problem["z"]) * size
                scalar = {k: v.item() for k, v in case.items() if getattr(v, "shape", 0) == ()}
                return np.asarray(draw(case | scalar, problem, schedule, ts, sampler, guide, x))

        return called

    return of


@run
def ddim(case):
    T, steps = len(case["betas"]), case["timesteps"]
    last = max(steps[-1] - T // len(steps), -1)
    schedule = schedules.from_betas(case["betas"])
    return schedule, (np.append(steps, last) + 1) / T, samplers.ddim(schedule), 1.0


@run
def flow(case):
    schedule = schedules.rectified_flow()
    return schedule, case["ts"], samplers.euler(schedule), 1.0


@run
def edm(case):
    schedule = schedules.edm()
    return schedule, case["sigmas"], samplers.heun(schedule), case["sigmas"][0]


def by(rule, *names):
    """A guidance of a scale, a schedule and numbers of the case, in the case's domain."""

    def guide(case, problem, schedule, exact):
        domain = predict_x0 if case["domain"] == "x0" else predict_eps
        numbers = [
            case[name] or np.inf if name == "norm_threshold" else case[name] for name in names
        ]
        return rule(exact[0], case["scale"], NULL, schedule, *numbers, domain=domain)

    return guide


def cfg(case, problem, schedule, exact, null=NULL):
    return guidance.classifier_free(exact[0], case["scale"], null)


def compose(case, problem, schedule, exact):
    labels = [{"label": jnp.asarray(problem[y])} for y in ("y", "y2")]
    return guidance.compose(exact[0], labels, list(case["scales"]), NULL)


def apg_momentum(case, problem, schedule, exact):
    domain = predict_x0 if case["domain"] == "x0" else predict_eps
    numbers = (
        case["scale"],
        schedule,
        case["momentum"],
        case["eta"],
        case["norm_threshold"] or np.inf,
    )
    sampler = guidance.adaptive_projected_sampler(samplers.ddim(schedule), *numbers, domain)
    return guidance.pair(exact[0], NULL), sampler


def cfg_plus_plus(case, problem, schedule, exact):
    return guidance.pair(exact[0], NULL), guidance.cfg_plus_plus(schedule, case["scale"])


def autoguidance(case, problem, schedule, exact):
    worse, _ = labelled_mixture(problem, schedule, "worse_")
    return guidance.autoguidance(exact[0], worse, case["scale"])


def interval_of_sigmas(case, problem, schedule, exact):
    guided = cfg(case, problem, schedule, exact)
    return guidance.interval(guided, exact[0], schedule, case["low"], case["high"])


def interval_of_steps(case, problem, schedule, exact):
    """From the level of the first step down to above that of the end."""
    T, steps = len(case["betas"]), case["timesteps"]
    t = jnp.asarray(steps[[case["end_step"], case["first_step"]]] + 1) / T
    low, high = schedule.sigma(t) / schedule.alpha(t)
    guided = cfg(case, problem, schedule, exact)
    return guidance.interval(guided, exact[0], schedule, low * (1 + 1e-9), high * (1 + 1e-9))


def interval_of_indices(case, problem, schedule, exact):
    """In steps a to b, all calls of each: from the level where b begins to where a does."""
    sigmas = case["sigmas"]
    low, high = sigmas[case["last"]] * (1 - 1e-9), sigmas[case["first"]] * (1 + 1e-9)
    heun = samplers.heun(schedule)
    sampler = guidance.interval_of_steps(heun, case["scale"], schedule, low, high)
    return guidance.pair(exact[0], NULL), sampler


def threshold_with_kept_eps(case, problem, schedule, exact):
    """The thresholded x0 beside the noise of the one before it, as CFG++ puts two together."""
    plain, limited = (
        cfg(case, problem, schedule, exact),
        threshold_of_case(case, problem, schedule, exact),
    )

    def both(x, t, cond):
        return Prediction(jnp.stack([limited(x, t, cond).x0, plain(x, t, cond).x0]))

    return both, guidance.cfg_plus_plus(schedule, 1.0)


def autoguidance_unconditional(case, problem, schedule, exact):
    worse, _ = labelled_mixture(problem, schedule, "worse_")
    guided = guidance.autoguidance(exact[0], worse, case["scale"])
    return lambda x, t, cond: guided(x, t, {"label": jnp.full(x.shape[:1], -1)})


def zero_star(steps):
    """Zero velocity in the first steps, of a uniform grid of times."""

    def guide(case, problem, schedule, exact):
        ts = case["ts"]
        off = (ts[steps - 1] + ts[steps]) / 2 if steps else np.inf
        return guidance.cfg_zero_star(exact[0], case["scale"], NULL, schedule, off)

    return guide


def threshold_of_case(case, problem, schedule, exact):
    guided = cfg(case, problem, schedule, exact)
    return guidance.dynamic_threshold(guided, case["quantile"], case.get("max", np.inf))


FUNCTIONS = {
    "rule_cfg": of_steps(lambda c, u, scale: guidance.rescale_rule(c, u, scale, 0.0)),
    "rule_cfg_rescale": of_steps(guidance.rescale_rule),
    "rule_apg": apg,
    "rule_cfg_zero_star": of_steps(guidance.zero_star_rule),
    "rule_tcfg": of_steps(guidance.tangential_rule),
    "rule_mambo_g": of_steps(guidance.magnitude_rule),
    "threshold": threshold,
    "threshold_max": threshold,
    "run_ddim_cond": ddim(lambda case, problem, schedule, exact: exact[0]),
    "run_ddim_cfg": ddim(cfg),
    "run_ddim_negative": ddim(
        lambda case, problem, *rest: cfg(case, problem, *rest, {"label": problem["y2"]})
    ),
    "run_ddim_compose": ddim(compose),
    "run_ddim_classifier": ddim(
        lambda case, problem, schedule, exact: guidance.classifier(
            lambda x, t, cond: exact[0](x, t, {"label": jnp.full(x.shape[:1], -1)}),
            exact[1],
            case["scale"],
            schedule,
        )
    ),
    "run_ddim_autoguidance": ddim(autoguidance),
    "run_ddim_cfgpp": ddim(cfg_plus_plus),
    "run_ddim_apg": ddim(by(guidance.adaptive_projected, "eta", "norm_threshold")),
    "run_ddim_apg_momentum": ddim(apg_momentum),
    "run_ddim_cfg_rescale": ddim(by(guidance.rescaled, "rescale")),
    "run_ddim_mambo_g": ddim(by(guidance.mambo_g, "alpha")),
    "run_ddim_tcfg": ddim(by(guidance.tangential)),
    "run_ddim_threshold_new_eps": ddim(threshold_of_case),
    "run_ddim_threshold_kept_eps": ddim(threshold_with_kept_eps),
    "run_flow_cfg": flow(cfg),
    "run_flow_cfg_zero_star": flow(zero_star(1)),
    "run_flow_cfg_zero_star_scale_only": flow(zero_star(0)),
    "run_edm_cfg": edm(cfg),
    "run_edm_autoguidance": edm(autoguidance),
    "run_edm_autoguidance_uncond": edm(autoguidance_unconditional),
    "run_ddim_interval": ddim(interval_of_steps),
    "run_edm_interval_index": edm(interval_of_indices),
    "run_edm_interval_sigma": edm(interval_of_sigmas),
}
