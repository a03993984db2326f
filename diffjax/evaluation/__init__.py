"""How good samples are."""

from diffjax.evaluation.frechet import frechet_distance, moments

__all__ = ["frechet_distance", "moments"]
