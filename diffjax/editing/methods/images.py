"""Methods that begin with a picture: SDEdit, inpainting, inversion, FlowEdit, interpolation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffjax import editing, samplers
from diffjax.diffusion import sample_keys, step_noise
from diffjax.editing.edit import Edit, before
from diffjax.samplers.flow import radius
from diffjax.schedules import rectified_flow
from diffjax.types import Denoiser, Prediction, Sampler, Schedule, per_sample

SamplerMaker = Callable[..., Sampler]


def sdedit(schedule: Schedule, sampler: SamplerMaker = samplers.ddim) -> Edit:
    """SDEdit: the picture noised to the level of --strength, and denoised: Meng et al. 2022.

    Args:
      schedule: the noise schedule.
      sampler: name of the sampler that denoises.

    Returns:
      The edit; several samples of one picture are its variations.
    """

    def run(key, denoiser, x, ts, cond, first):
        x = schedule.alpha(ts[0]) * cond["init_image"] + x
        return samplers.sample(key, denoiser, sampler(schedule), x, ts, cond, first), ts.shape[
            0
        ] - 1

    return Edit(run, ("init_image",), 0.6)


def replacement(schedule: Schedule, sampler: SamplerMaker = samplers.ancestral) -> Edit:
    """Inpainting with the known part put in before each step: Song et al. 2021, appendix I.2.

    Args:
      schedule: the noise schedule.
      sampler: name of the sampler.

    Returns:
      The edit, whose known part is the picture's.
    """

    def run(key, denoiser, x, ts, cond, first):
        known, mask = cond["init_image"], cond["mask"][0]
        steps = editing.replacement(schedule, sampler(schedule), known, mask)
        x = samplers.sample(key, denoiser, steps, x, ts, cond, first)
        return editing.fill(x, known, mask), ts.shape[0] - 1

    return Edit(run, ("init_image", "mask"))


def repaint(schedule: Schedule, jump_length: int = 5, jump_n_sample: int = 5) -> Edit:
    """Inpainting with returns to higher noise: Lugmayr et al. 2022 (RePaint).

    Args:
      schedule: the noise schedule.
      jump_length: steps of a return.
      jump_n_sample: passes over each part of the grid; 1 has no returns.

    Returns:
      The edit, whose known part is the picture's; steps times passes denoiser calls.
    """
    editing.repaint_times(1, jump_length, jump_n_sample)  # refuses numbers below 1

    def run(key, denoiser, x, ts, cond, first):
        known, mask = cond["init_image"], cond["mask"][0]
        steps = editing.repaint_times(ts.shape[0] - 1, jump_length, jump_n_sample)
        times = jnp.asarray(ts)[ts.shape[0] - 2 - steps]
        sampler = editing.repaint(schedule, known, mask)
        x = editing.walk(key, denoiser, sampler, x, times, cond, first=first)
        return editing.fill(x, known, mask), len(steps) - 1

    return Edit(run, ("init_image", "mask"))


def ddim_inversion(schedule: Schedule) -> Edit:
    """The picture encoded by DDIM as what it is, and decoded as what it is to be: Mokady 2023.

    Args:
      schedule: the noise schedule.

    Returns:
      The edit; both ways under the same guidance scale, best near 1.
    """

    def run(key, denoiser, x, ts, cond, first):
        x = editing.ddim_inversion(schedule, denoiser, cond["init_image"], ts, before(cond))
        sampler = samplers.ddim(schedule)
        return samplers.sample(key, denoiser, sampler, x, ts, cond, first), 2 * (ts.shape[0] - 1)

    return Edit(run, ("init_image", "before"), 1.0)


def ddpm_inversion(schedule: Schedule) -> Edit:
    """Edit-friendly noise maps, replayed as what it is to be: Huberman-Spiegelglas et al. 2024.

    Args:
      schedule: the noise schedule.

    Returns:
      The edit; at its last noisy level the picture stands for itself, so that an edit to what
      it is gives it back.
    """

    def run(key, denoiser, x, ts, cond, first):
        ts, x0 = ts[:-1], cond["init_image"]
        keys = sample_keys(key, x.shape[0], first)
        draws = jax.vmap(lambda step: step_noise(keys, step, 1, x)[0])(jnp.arange(len(ts) - 1))
        x, maps = editing.ddpm_inversion(schedule, denoiser, x0, ts, draws, before(cond))
        return editing.replay(schedule, denoiser, x, ts, maps, cond), 2 * (ts.shape[0] - 1)

    return Edit(run, ("init_image", "before"), 0.7)


def flow_edit(schedule: Schedule, averages: int = 1) -> Edit:
    """FlowEdit: along the difference of two velocities, without inversion: Kulikov et al. 2025.

    Args:
      schedule: the noise schedule; the flow is x0 and noise in straight lines, whatever it is.
      averages: noises over which the difference is averaged.

    Returns:
      The edit.
    """

    def run(key, denoiser, x, ts, cond, first):
        keys, line = sample_keys(key, x.shape[0], first), on_a_line(denoiser, schedule)
        levels = schedule.sigma(ts) / (schedule.alpha(ts) + schedule.sigma(ts))
        noise = jax.vmap(lambda i: step_noise(keys, i, averages, x))(jnp.arange(len(ts) - 1))
        source, target = (lambda x, t, c=c: line(x, t, c) for c in (before(cond), cond))
        x = editing.flow_edit(rectified_flow(), source, target, cond["init_image"], levels, noise)
        return x, 2 * averages * (ts.shape[0] - 1)

    return Edit(run, ("init_image", "before"), 0.7)


def on_a_line(denoiser: Denoiser, schedule: Schedule) -> Denoiser:
    """A denoiser of any schedule as one of x_u = (1 - u) x0 + u eps, at 0 < u < 1.

    The time of the same signal-to-noise ratio, and x in its units.
    """

    def moved(x, u, cond):
        u = jnp.asarray(u)
        t = schedule.t_from_logsnr(2 * (jnp.log1p(-u) - jnp.log(u)))
        t = jnp.clip(t, schedule.t_min, schedule.t_max)
        scale = radius(schedule, t) / jnp.hypot(1 - u, u)
        return Prediction(denoiser(per_sample(scale, x) * x, t, cond).x0)

    return moved


def interpolation(schedule: Schedule) -> Edit:
    """Between two pictures along the sphere of their encodings: Song et al. 2021 (DDIM).

    Args:
      schedule: the noise schedule.

    Returns:
      The edit; sample i of n has the weight i/(n - 1) of --to-image.
    """

    def run(key, denoiser, x, ts, cond, first):
        ends = (cond["init_image"], cond["to_image"])
        a, b = (editing.ddim_inversion(schedule, denoiser, end, ts, cond) for end in ends)
        x = editing.slerp(a, b, cond["weight"])
        sampler = samplers.ddim(schedule)
        return samplers.sample(key, denoiser, sampler, x, ts, cond, first), 3 * (ts.shape[0] - 1)

    return Edit(run, ("init_image", "to_image"), 1.0)
