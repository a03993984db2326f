"""Few steps: distillation, consistency and flow maps, one method a file.

Each method is a `LossFn` of one network: of one time, or of two (`two_time_denoiser`). Those with
a teacher are given its parameters as `frozen`.
"""

from diffjax.distill.consistency import consistency_distillation, consistency_preconditioning
from diffjax.distill.consistency_training import (
    consistency_distribution,
    consistency_grid,
    consistency_levels,
    consistency_training,
    doubling,
    draw_neighbours,
    easy_consistency,
    easy_ratio,
)
from diffjax.distill.distance import adaptive, elementwise_huber, pseudo_huber, squared
from diffjax.distill.dmd import distribution_matching, matching_gradient
from diffjax.distill.flow_map import (
    Interval,
    as_denoiser,
    average_velocity,
    flow_map,
    heun_step,
    jump,
    two_time_denoiser,
    x0_of_jump,
)
from diffjax.distill.guidance import at_scale, guidance_distillation, guided_by
from diffjax.distill.latent_consistency import boundary, latent_consistency
from diffjax.distill.mean_flow import (
    derivative_along,
    improved_mean_flow,
    mean_flow,
    mean_flow_target,
)
from diffjax.distill.moments import (
    a_little_earlier,
    drift,
    drifting,
    inductive_moment_matching,
    laplace_discrepancy,
)
from diffjax.distill.progressive import (
    even_times,
    halving,
    progressive_distillation,
    progressive_target,
)
from diffjax.distill.reflow import coupling, reflow, straightness
from diffjax.distill.sampling import consistency_sampler, flow_map_sampler
from diffjax.distill.scm import normalised, scm, tangent
from diffjax.distill.shortcut import doubled_target, shortcut
from diffjax.distill.teacher import (
    draw_intervals,
    teacher_of,
    velocity_of_data,
    velocity_of_teacher,
)
from diffjax.distill.trajectory import consistency_trajectory, solution_flow

__all__ = [
    "Interval",
    "a_little_earlier",
    "adaptive",
    "as_denoiser",
    "at_scale",
    "average_velocity",
    "boundary",
    "consistency_distillation",
    "consistency_distribution",
    "consistency_grid",
    "consistency_levels",
    "consistency_preconditioning",
    "consistency_sampler",
    "consistency_training",
    "consistency_trajectory",
    "coupling",
    "derivative_along",
    "distribution_matching",
    "doubled_target",
    "doubling",
    "draw_intervals",
    "draw_neighbours",
    "drift",
    "drifting",
    "easy_consistency",
    "easy_ratio",
    "elementwise_huber",
    "even_times",
    "flow_map",
    "flow_map_sampler",
    "guidance_distillation",
    "guided_by",
    "halving",
    "heun_step",
    "improved_mean_flow",
    "inductive_moment_matching",
    "jump",
    "laplace_discrepancy",
    "latent_consistency",
    "matching_gradient",
    "mean_flow",
    "mean_flow_target",
    "normalised",
    "progressive_distillation",
    "progressive_target",
    "pseudo_huber",
    "reflow",
    "scm",
    "shortcut",
    "solution_flow",
    "squared",
    "straightness",
    "tangent",
    "teacher_of",
    "two_time_denoiser",
    "velocity_of_data",
    "velocity_of_teacher",
    "x0_of_jump",
]
