"""Few steps: distillation, consistency and flow maps, one method a file.

Each method is a `LossFn` of one network: of one time, or of two (`two_time_denoiser`). Those with
a teacher are given its parameters as `frozen`.
"""

from diffjax.distill.adversarial_head import adversarial_head, no_adversary
from diffjax.distill.consistency import (
    by_network_output,
    consistency_distillation,
    consistency_preconditioning,
)
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
from diffjax.distill.drifting import (
    at_one_scale,
    drift,
    drifted,
    drifting,
    kernel_weights,
    same_label,
)
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
from diffjax.distill.frozen_teacher import (
    frozen_teacher,
    guided_data_for,
    teaching,
    velocity_for,
)
from diffjax.distill.guidance import at_scale, guidance_distillation, guided_by
from diffjax.distill.latent_consistency import boundary, latent_consistency
from diffjax.distill.mean_flow import (
    derivative_along,
    improved_mean_flow,
    mean_flow,
    mean_flow_target,
)
from diffjax.distill.moment_matching import moment_matching, posterior_of_jump
from diffjax.distill.moments import (
    a_little_earlier,
    inductive_moment_matching,
    laplace_discrepancy,
)
from diffjax.distill.negative_aware import negative_aware, optimality
from diffjax.distill.other_schedule import denoiser_on, predicted_on, same_snr
from diffjax.distill.progressive import (
    even_times,
    progressive_distillation,
    progressive_stages,
    progressive_target,
    stages_of,
)
from diffjax.distill.reflow import coupling, on_pairs, reflow, straightness
from diffjax.distill.reward import advantages, draft, policy_gradient, rollout
from diffjax.distill.sampling import consistency_sampler, flow_map_sampler
from diffjax.distill.scm import normalised, scm, tangent
from diffjax.distill.score_distillation import score_distillation
from diffjax.distill.shortcut import doubled_target, shortcut
from diffjax.distill.student import (
    JUMPS,
    ONE_STEP,
    UNTIL,
    at_drawn_scales,
    experiment,
    student,
    with_critic,
    with_head,
    with_past,
)
from diffjax.distill.teacher import (
    SCALE,
    draw_intervals,
    guided_data,
    noised_towards,
    teacher_of,
    velocity_of_data,
    velocity_of_teacher,
    with_itself,
)
from diffjax.distill.trajectory import consistency_trajectory, solution_flow

__all__ = [
    "JUMPS",
    "ONE_STEP",
    "SCALE",
    "UNTIL",
    "Interval",
    "a_little_earlier",
    "adaptive",
    "advantages",
    "adversarial_head",
    "as_denoiser",
    "at_drawn_scales",
    "at_one_scale",
    "at_scale",
    "average_velocity",
    "boundary",
    "by_network_output",
    "consistency_distillation",
    "consistency_distribution",
    "consistency_grid",
    "consistency_levels",
    "consistency_preconditioning",
    "consistency_sampler",
    "consistency_training",
    "consistency_trajectory",
    "coupling",
    "denoiser_on",
    "derivative_along",
    "distribution_matching",
    "doubled_target",
    "doubling",
    "draft",
    "draw_intervals",
    "draw_neighbours",
    "drift",
    "drifted",
    "drifting",
    "easy_consistency",
    "easy_ratio",
    "elementwise_huber",
    "even_times",
    "experiment",
    "flow_map",
    "flow_map_sampler",
    "frozen_teacher",
    "guidance_distillation",
    "guided_by",
    "guided_data",
    "guided_data_for",
    "heun_step",
    "improved_mean_flow",
    "inductive_moment_matching",
    "jump",
    "kernel_weights",
    "laplace_discrepancy",
    "latent_consistency",
    "matching_gradient",
    "mean_flow",
    "mean_flow_target",
    "moment_matching",
    "negative_aware",
    "no_adversary",
    "noised_towards",
    "normalised",
    "on_pairs",
    "optimality",
    "policy_gradient",
    "posterior_of_jump",
    "predicted_on",
    "progressive_distillation",
    "progressive_stages",
    "progressive_target",
    "pseudo_huber",
    "reflow",
    "rollout",
    "same_label",
    "same_snr",
    "scm",
    "score_distillation",
    "shortcut",
    "solution_flow",
    "squared",
    "stages_of",
    "straightness",
    "student",
    "tangent",
    "teacher_of",
    "teaching",
    "two_time_denoiser",
    "velocity_for",
    "velocity_of_data",
    "velocity_of_teacher",
    "with_critic",
    "with_head",
    "with_itself",
    "with_past",
    "x0_of_jump",
]
