"""The types that every part of diffjax speaks, and the one broadcasting rule.

Callables and NamedTuples of callables: a schedule, a sampler or a time density is a
record of pure functions that closes over its hyperparameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree

Params = PyTree
State = PyTree
Cond = dict[str, PyTree] | None
"""Conditions by name: `label` (B,) int, where the number of classes is the null label;
`tokens` (B, L, D) with `token_mask` (B, L). Each is a pytree of arrays (B, ...); None is
unconditional."""

Samples = Float[Array, "b *d"]
"""A batch of data, noise or anything of their shape."""

Keys = Key[Array, " b"]
"""One key per sample."""

PerSample = Float[Array, " b"]
"""One number per sample."""

Anyshape = Float[Array, "*s"]
"""Real numbers of one shape throughout a signature."""

Scalar = Float[Array, ""] | float
Index = Int[Array, ""] | int

Time = Float[Array, ""] | PerSample | float
"""A time for the whole batch, or one per sample."""

Grid = Float[Array, " n1"]
"""n + 1 decreasing times."""

Path = Float[Array, "n1 b *d"]
"""A batch at each time of a grid."""

BetaTable = Float[Array | np.ndarray, " T"]
"""beta_k of steps k = 0 .. T - 1."""

Network = Callable[[Params, Array, Array, Cond, PRNGKeyArray | None], Array]
"""(params, x, c_noise, cond, dropout key or None when sampling) -> raw output."""


class Schedule(NamedTuple):
    """A Gaussian perturbation x_t = alpha(t) x0 + sigma(t) eps; larger t is noisier.

    The clean time, where sigma is 0, is `t_from_logsnr(inf)` (-inf where no finite time is
    clean); a network is trained on `[t_min, t_max]`.
    """

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    t_from_logsnr: Callable[[Array], Array]
    t_min: float
    t_max: float


class Coefficients(NamedTuple):
    """x0_hat = c_skip x_t + c_out F(c_in x_t, c_noise): Karras et al. 2022, Eq. 7 and Table 1."""

    c_skip: Array
    c_out: Array
    c_in: Array
    c_noise: Array


Parameterization = Callable[[Schedule, Array], Coefficients]


class Prediction(NamedTuple):
    """What a denoiser says of x_t: the mean of x0, and optionally a learned variance.

    `variance_fraction` is the v of Nichol & Dhariwal 2021, Eq. 15: 0 is the small
    (posterior) variance, 1 the large one, interpolated in the logarithm.
    """

    x0: Array
    variance_fraction: Array | None = None


Denoiser = Callable[[Array, Array, Cond], Prediction]
"""(x_t, t, cond) -> Prediction, where t is a scalar or (B,)."""

BoundDenoiser = Callable[[Array, Array], Prediction]
"""A denoiser with its condition bound: (x_t, t) -> Prediction."""

FlowMap = Callable[[Array, Array, Array, Cond], Array]
"""(x_t, t, s, cond) -> x_s, along the probability flow from t to the earlier s.

As s goes to t its rate of change is the denoiser's velocity; at a clean s it is a consistency
function."""


class Sampler(NamedTuple):
    """One step over an interval t -> s, s < t, as a deterministic function of given noise.

    Attributes:
      init: (x_T, ts) -> state; sees the whole grid, returns () where nothing is kept.
      step: (noise, denoise, x, t, s, state) -> (x_s, state), noise (draws, *x.shape).
      draws: standard-normal arrays of x's shape wanted per step.
      inner: (t, s) -> (k,), shares of the step in (0, 1]. The first k + 1 draws follow one
        Brownian path: each of k ends at its share of the step, the next at the step's end, and
        each is divided by the root of its length (`samplers.noise.path_noise`). The others are
        independent. None: no draw ends within the step.
      stochastic: whether the draws can change the result; False where their weight is a known 0.
    """

    init: Callable[[Array, Array], State]
    step: Callable[[Array, BoundDenoiser, Array, Array, Array, State], tuple[Array, State]]
    draws: int = 0
    inner: Callable[[Array, Array], Array] | None = None
    stochastic: bool = True


AdaptiveSampler = Callable[[PRNGKeyArray, Denoiser, Samples, Cond, Index], tuple[Samples, Array]]
"""(key, denoiser, noise at t_max, condition, index of the first sample) -> (samples, denoiser
calls): a sampler that chooses its own steps."""


class TimeDensity(NamedTuple):
    """How training times are drawn, as a pure state machine.

    Attributes:
      init: () -> state, carried in the training context.
      draw: (key, batch, state) -> (t (B,), importance (B,)); `mean(importance * L_t)` is an
        unbiased estimate of the mean of L_t over uniform t, or where the density is a part
        of the objective (EDM, SD3) importance is 1.
      update: (state, t, losses) -> state, with the losses before the importance weight.
    """

    init: Callable[[], State]
    draw: Callable[[PRNGKeyArray, int, State], tuple[Array, Array]]
    update: Callable[[State, Array, Array], State]


LossFn = Callable[..., tuple[Array, dict[str, Any]]]
"""loss(params, key, batch, **context) -> (scalar, aux).

`aux` is a dict of scalars to log; its optional entry "context" is the context of the
next step (see `TimeDensity`)."""


def per_sample(a: Array | float, x: Array) -> Array:
    """Give a scalar or (B,) value the trailing axes it needs to multiply x (B, ...)."""
    a = jnp.asarray(a)
    return a if a.ndim == 0 else a.reshape(a.shape + (1,) * (x.ndim - a.ndim))
