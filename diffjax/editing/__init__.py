"""Editing and inverse problems without training: samplers and denoisers on the one scan."""

from diffjax.editing.inpainting import fill, repaint, repaint_times, replacement
from diffjax.editing.interpolation import flow_edit, mix, slerp
from diffjax.editing.inversion import ddim_inversion, ddpm_inversion, replay
from diffjax.editing.operators import (
    LinearOperator,
    blur,
    colourisation,
    compressed_sensing,
    from_matrix,
    gaussian_kernel,
    inpainting,
    inverse,
    jpeg,
    on_data,
    phase_retrieval,
    pseudo_inverse,
    super_resolution,
)
from diffjax.editing.particles import Particles, daps, twisted_smc
from diffjax.editing.posterior import (
    check_measurement,
    dps,
    guided_variance,
    pigdm,
    pigdm_score,
    pigdm_steps,
    residual_norm_gradient,
)
from diffjax.editing.sdedit import sdedit, strength_steps
from diffjax.editing.spectral import ddnm, ddrm, ddrm_start
from diffjax.editing.walk import walk

__all__ = [
    "LinearOperator",
    "Particles",
    "blur",
    "check_measurement",
    "colourisation",
    "compressed_sensing",
    "daps",
    "ddim_inversion",
    "ddnm",
    "ddpm_inversion",
    "ddrm",
    "ddrm_start",
    "dps",
    "fill",
    "flow_edit",
    "from_matrix",
    "gaussian_kernel",
    "guided_variance",
    "inpainting",
    "inverse",
    "jpeg",
    "mix",
    "on_data",
    "phase_retrieval",
    "pigdm",
    "pigdm_score",
    "pigdm_steps",
    "pseudo_inverse",
    "repaint",
    "repaint_times",
    "replacement",
    "replay",
    "residual_norm_gradient",
    "sdedit",
    "slerp",
    "strength_steps",
    "super_resolution",
    "twisted_smc",
    "walk",
]
