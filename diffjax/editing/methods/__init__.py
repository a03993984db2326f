"""The methods of `python -m diffjax.edit`: constructors of an `Edit`, named by their functions.

Each takes the schedule first; its other keywords are flags. What they do is in the files of
`diffjax.editing`; here they meet a grid, a sampler and what is given.
"""

from diffjax.editing.methods.images import (
    ddim_inversion,
    ddpm_inversion,
    flow_edit,
    interpolation,
    repaint,
    replacement,
    sdedit,
)
from diffjax.editing.methods.measured import daps, ddnm, ddrm, dps, pigdm, twisted_smc

__all__ = [
    "daps",
    "ddim_inversion",
    "ddnm",
    "ddpm_inversion",
    "ddrm",
    "dps",
    "flow_edit",
    "interpolation",
    "pigdm",
    "repaint",
    "replacement",
    "sdedit",
    "twisted_smc",
]
