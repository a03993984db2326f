"""Guidance: functions from denoiser to denoiser, and the training half of classifier-free guidance.

`scale` is that of uncond + scale (cond - uncond): 1 is no guidance, 0 the unconditional model.
"""

from diffjax.guidance.classifier import classifier, label_log_prob
from diffjax.guidance.classifier_free import classifier_free
from diffjax.guidance.dropout import condition_dropout
from diffjax.guidance.threshold import dynamic_threshold, static_clip

__all__ = [
    "classifier",
    "classifier_free",
    "condition_dropout",
    "dynamic_threshold",
    "label_log_prob",
    "static_clip",
]
