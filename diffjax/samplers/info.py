"""What is known of each sampler, as data: its order, its denoiser calls and its paper."""

from collections.abc import Callable
from functools import partial, wraps
from inspect import signature
from typing import Any, NamedTuple

from diffjax.samplers.checks import check_times
from diffjax.types import Sampler, Schedule


class SamplerInfo(NamedTuple):
    """What a constructor says of the samplers that it makes.

    Attributes:
      order: of accuracy, None where there is none to state; of the moments where `weak`.
      calls: n -> denoiser calls of a run of n steps that ends clean; None where it is not
        known ahead (a sampler that chooses its own steps).
      paper: where it is from, as the first line of the docstring has it.
      weak: whether the order is that of the moments.
    """

    order: int | None
    calls: Callable[[int], int] | None
    paper: str
    weak: bool = False


def described(
    paper: str,
    order: int | Callable[..., int | None] | None = None,
    calls: Callable[..., int] | None = None,
    weak: bool = False,
) -> Callable[[Callable], Callable]:
    """Attach a `SamplerInfo` to a constructor, whose samplers then look at their grids.

    A known grid beyond the schedule is an InputError when sampling.

    Args:
      paper: where it is from.
      order: of accuracy, or a function of the constructor's options by name.
      calls: (n, options by name) -> denoiser calls of a run of n steps that ends clean.
      weak: whether the order is that of the moments.

    Returns:
      A decorator of the constructor.
    """

    def attach(constructor):
        @wraps(constructor)
        def construct(schedule, *args, **kwargs):
            return _within(schedule, constructor(schedule, *args, **kwargs))

        construct.info = SamplerInfo(order, calls, paper, weak)
        return construct

    return attach


def _within(schedule: Schedule, sampler: Any) -> Any:
    """The sampler with `check_times` before its init; an adaptive one is not given times."""
    if not isinstance(sampler, Sampler):
        return sampler

    def init(x, ts):
        check_times(schedule, ts)
        return sampler.init(x, ts)

    return sampler._replace(init=init)


def sampler_info(constructor: Callable, **options: Any) -> SamplerInfo:
    """The `SamplerInfo` of a constructor, at these options and otherwise its defaults.

    Args:
      constructor: of `diffjax.samplers`, or a `functools.partial` of one.
      options: by name, as for the constructor.

    Returns:
      Its `SamplerInfo`, with the order a number and calls a function of n alone.
    """
    if isinstance(constructor, partial):
        return sampler_info(constructor.func, **constructor.keywords, **options)
    parameters = signature(constructor).parameters.values()
    known = {p.name: p.default for p in parameters if p.default is not p.empty} | options
    order, calls, paper, weak = constructor.info
    return SamplerInfo(
        order(**known) if callable(order) else order,
        None if calls is None else partial(calls, **known),
        paper,
        weak,
    )


def per_step(k: int) -> Callable[..., int]:
    """k denoiser calls in each step."""
    return lambda n, **options: k * n


def but_last(k: int) -> Callable[..., int]:
    """k denoiser calls per step, and one in the last."""
    return lambda n, **options: k * (n - 1) + 1
