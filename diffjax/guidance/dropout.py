"""The training half of classifier-free guidance: a function from loss to loss."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.guidance.null import Nulls, entries, null_like
from diffjax.types import LossFn, PRNGKeyArray, PyTree, per_sample


def _rate_of_each(nulls: Nulls, rates: float | Mapping[str, float]) -> dict[str, float]:
    """The rate of every condition that is dropped, checked."""
    known = [name for name, null in nulls.items() if null is not None]
    rates = dict(rates) if isinstance(rates, Mapping) else dict.fromkeys(known, rates)
    for name, rate in rates.items():
        if name not in known:
            raise InputError(
                f"condition_dropout got a rate for {name!r}, which has no null value; null values "
                f"are given for: {', '.join(sorted(known)) or 'none'}."
            )
        if not 0 <= rate <= 1:
            raise InputError(
                f"condition_dropout needs a rate in [0, 1] for {name!r}; got {rate}. It is the "
                "share of the samples that train without the condition, such as 0.1."
            )
    return rates


def _replace(drop: PyTree, name: str, null: PyTree, value: PyTree) -> PyTree:
    """An entry of the batch with its null value in the samples where `drop` (B,) is true."""
    null = null_like(name, null, value)
    return jax.tree.map(lambda n, v: jnp.where(per_sample(drop, n), n, v), null, value)


def _drop(key: PRNGKeyArray, rate: float, nulls: dict[str, PyTree], batch: dict) -> dict:
    """The entries of one condition, all replaced in the same share `rate` of the samples."""
    missing = sorted(nulls.keys() - batch.keys())
    if missing:
        raise InputError(
            f"condition_dropout drops {', '.join(missing)}, which the batch lacks; it has "
            f"{', '.join(sorted(batch))}. Take it out of the nulls or add it to the data."
        )
    drop = jax.random.bernoulli(key, rate, (batch["x"].shape[0],))
    return {name: _replace(drop, name, null, batch[name]) for name, null in nulls.items()}


def condition_dropout(loss: LossFn, nulls: Nulls, rates: float | Mapping[str, float]) -> LossFn:
    """Train without each condition for a share of the samples: Ho & Salimans 2022, Alg. 1.

    Every condition is dropped by its own draw, so that with two of rates p and q a share p q
    of the samples trains without both. Entries of the batch that are dropped together, such as
    tokens and their mask, are one condition: {"text": {"tokens": 0.0, "token_mask": True}}.

    Args:
      loss: any loss of batches with the conditions beside "x".
      nulls: the null value of each condition, such as {"label": 10}; it broadcasts to the
        batch. A condition that is absent or None here is never dropped.
      rates: share of samples replaced, in [0, 1]: one number for all conditions, or a dict,
        where a condition without a rate is never dropped.

    Returns:
      A `LossFn` with the same context.

    Raises:
      InputError: a rate is out of range or of no known condition; when called, a condition is
        missing from the batch or its null does not broadcast.
    """
    rates = _rate_of_each(nulls, rates)

    def dropped(params, key, batch, **context):
        groups = entries(nulls, batch)
        loss_key, *keys = jax.random.split(key, 1 + len(rates))
        for name, drop_key in zip(sorted(rates), keys, strict=True):
            batch = batch | _drop(drop_key, rates[name], groups[name], batch)
        return loss(params, loss_key, batch, **context)

    return dropped
