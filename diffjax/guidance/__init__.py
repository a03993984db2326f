"""Guidance: functions from denoiser to denoiser, and the training half of classifier-free guidance.

`scale` is that of uncond + scale (cond - uncond): 1 is no guidance, 0 the unconditional model.
They compose: a rule first, then `interval` or `scheduled` around it, then `energy`, then
`static_clip` or `dynamic_threshold`. Three are samplers of a `pair`, since they keep a state or
need both predictions: `adaptive_projected_sampler`, `cfg_plus_plus` and `interval_of_steps`.
`corrected` is a draw of its own, whose law is the tilted one that the others miss.
"""

from diffjax.guidance.classifier import classifier, label_log_prob
from diffjax.guidance.classifier_free import classifier_free
from diffjax.guidance.compose import autoguidance, compose
from diffjax.guidance.corrected import Corrected, corrected, effective_size, systematic
from diffjax.guidance.direction import (
    cfg_zero_star,
    tangential,
    tangential_rule,
    zero_star_rule,
)
from diffjax.guidance.dropout import condition_dropout
from diffjax.guidance.energy import energy
from diffjax.guidance.frequency import frequency_decoupled, frequency_rule
from diffjax.guidance.level import interval, interval_of_steps, scheduled
from diffjax.guidance.pair import by_rule, pair
from diffjax.guidance.plus_plus import cfg_plus_plus
from diffjax.guidance.projected import (
    adaptive_projected,
    adaptive_projected_sampler,
    projected_rule,
)
from diffjax.guidance.rescale import magnitude_rule, mambo_g, rescale_rule, rescaled
from diffjax.guidance.threshold import dynamic_threshold, static_clip

__all__ = [
    "Corrected",
    "adaptive_projected",
    "adaptive_projected_sampler",
    "autoguidance",
    "by_rule",
    "cfg_plus_plus",
    "cfg_zero_star",
    "classifier",
    "classifier_free",
    "compose",
    "condition_dropout",
    "corrected",
    "dynamic_threshold",
    "effective_size",
    "energy",
    "frequency_decoupled",
    "frequency_rule",
    "interval",
    "interval_of_steps",
    "label_log_prob",
    "magnitude_rule",
    "mambo_g",
    "pair",
    "projected_rule",
    "rescale_rule",
    "rescaled",
    "scheduled",
    "static_clip",
    "systematic",
    "tangential",
    "tangential_rule",
    "zero_star_rule",
]
