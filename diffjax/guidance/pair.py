"""One call of a multiple of the batch for several conditions, and rules on a pair of predictions.

A rule is a pure function (conditional, unconditional) -> guided of predictions (B, ...). It acts
in a domain, given as what a network would predict there: `predict_x0`, `predict_eps`, `predict_v`
or `predict_velocity`, whatever the network itself predicts.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from diffjax.guidance.null import Nulls, without
from diffjax.types import (
    Array,
    Cond,
    Denoiser,
    Parameterization,
    Prediction,
    PyTree,
    Samples,
    Schedule,
    Time,
    per_sample,
)

Rule = Callable[[Array, Array], Array]
"""(conditional, unconditional) -> guided, all (B, ...)."""


def _interleave(trees: Sequence[PyTree]) -> PyTree:
    """Leaves (n B, ...), those of one sample side by side: a sharded batch stays on its devices."""
    return jax.tree.map(
        lambda *a: jnp.stack(a, axis=1).reshape(len(a) * a[0].shape[0], *a[0].shape[1:]), *trees
    )


def predict_each(denoiser: Denoiser, x: Array, t: Time, conds: Sequence[Cond]) -> list[Prediction]:
    """The predictions under n conditions, by one call of n times the batch.

    Args:
      denoiser: any denoiser.
      x: samples (B, ...); B may be symbolic.
      t: times, a scalar or (B,).
      conds: conditions of one structure and shape.

    Returns:
      A prediction of each.
    """
    n, t = len(conds), jnp.broadcast_to(t, x.shape[:1])
    out = denoiser(_interleave([x] * n), _interleave([t] * n), _interleave(conds))
    apart = jax.tree.map(lambda a: a.reshape(x.shape[0], n, *a.shape[1:]), out)
    return [jax.tree.map(lambda a, i=i: a[:, i], apart) for i in range(n)]


def predict_both(denoiser: Denoiser, x: Array, t: Time, cond: Cond, null: Nulls) -> list:
    """The predictions with and without the conditions that have a null value, by one call."""
    return predict_each(denoiser, x, t, [cond or {}, without(null, cond)])


def pair(denoiser: Denoiser, null: Nulls) -> Denoiser:
    """Both predictions at once, for a sampler that combines them itself.

    Args:
      denoiser: trained with `condition_dropout`.
      null: the null value of each condition, as for `classifier_free`.

    Returns:
      A function of (x_t, t, cond) to a prediction whose x0 is (2, B, ...): conditional, then
      unconditional. `adaptive_projected_sampler` and `cfg_plus_plus` take it.
    """

    def both(x, t, cond):
        conditional, unconditional = predict_both(denoiser, x, t, cond, null)
        return conditional._replace(x0=jnp.stack([conditional.x0, unconditional.x0]))

    return both


def in_domain(
    rule: Rule, schedule: Schedule, domain: Parameterization, x: Samples, t: Time
) -> Rule:
    """A rule of predictions in a domain as a rule of x0 at x_t.

    With x0 = c_skip x_t + c_out F for what F the domain predicts.
    """
    c = domain(schedule, jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32)))
    skip, out = per_sample(c.c_skip, x) * x, per_sample(c.c_out, x)
    return lambda *x0: skip + out * rule(*((value - skip) / out for value in x0))


def by_rule(
    denoiser: Denoiser, rule: Rule, null: Nulls, schedule: Schedule, domain: Parameterization
) -> Denoiser:
    """Guidance by any rule on the conditional and unconditional prediction, in one call.

    Args:
      denoiser: trained with `condition_dropout`.
      rule: (conditional, unconditional) -> guided, in the domain.
      null: the null value of each condition, as for `classifier_free`.
      schedule: the noise schedule.
      domain: what the rule's arguments are: `predict_eps` and `predict_score` are undefined
        where alpha is 0, `predict_x0`, `predict_v` and `predict_velocity` nowhere.

    Returns:
      The guided denoiser; a learned variance is the conditional one.
    """

    def guided(x, t, cond):
        conditional, unconditional = predict_both(denoiser, x, t, cond, null)
        of_x0 = in_domain(rule, schedule, domain, x, t)
        return conditional._replace(x0=of_x0(conditional.x0, unconditional.x0))

    return guided


def dot(a: Array, b: Array) -> Array:
    """The inner product of each sample, (B, 1, ...)."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)


def square(a: Array) -> Array:
    """The squared norm of each sample, (B, 1, ...), above 0 so that one may divide by it."""
    return jnp.maximum(dot(a, a), jnp.finfo(a.dtype).tiny)
