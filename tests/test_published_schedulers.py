"""Every scheduler_config.json becomes diffusers' times, levels and clipping, or a sentence.

Steps and noise levels are those of diffusers 0.42.1 for the same settings.
"""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import samplers, schedules
from diffjax.errors import InputError
from diffjax.parameterization import make_denoiser
from diffjax.pretrained.sampling import sampling_of
from diffjax.pretrained.scheduler import KEY, noise_of
from diffjax.types import Prediction

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLUX = {"shift": 3.0, "use_dynamic_shifting": True}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}


def config(kind, **settings):
    """A network's configuration with its scheduler's."""
    return {KEY: {"_class_name": f"{kind}Scheduler", "_diffusers_version": "0.42.1", **settings}}


def times_and_levels(given, n, **options):
    """The times that the network is given, and sigma/alpha at every time of the grid."""
    schedule, parameterization = noise_of(given)
    ts = sampling_of(given).grid(schedule, n, **options)
    assert np.all(np.diff(ts) < 0)
    steps = parameterization(schedule, ts[:-1]).c_noise
    return np.asarray(steps), np.asarray(schedule.sigma(ts) / schedule.alpha(ts))


GRIDS = {
    "ddim": (config("DDIM", **SD, **LEADING), [801, 601, 401, 201, 1], None),
    "pndm": (
        config("PNDM", **SD, skip_prk_steps=True, steps_offset=1),
        [801, 601, 401, 201, 1],
        None,
    ),
    "dpm": (
        config("DPMSolverMultistep", **SD),
        [999, 799, 599, 400, 200],
        [14.614647, 5.087765, 2.276464, 1.164392, 0.571666, 0],
    ),
    "dpm, linear": (
        config("DPMSolverMultistep"),
        [999, 749, 500, 250],
        [157.40727, 17.246983, 3.442967, 0.958034, 0],
    ),
    "euler": (
        config("EulerDiscrete", **SD, steps_offset=1),
        [999, 749.25, 499.5, 249.75, 0],
        [14.614647, 4.08609, 1.615583, 0.695151, 0.0291675, 0],
    ),
    "lcm": (config("LCM", **SD), [999, 759, 499, 259], None),
    "svd": (
        config(
            "EulerDiscrete",
            **SD,
            prediction_type="v_prediction",
            use_karras_sigmas=True,
            sigma_min=0.002,
            sigma_max=700.0,
            timestep_spacing="leading",
            timestep_type="continuous",
            steps_offset=1,
        ),
        [1.63777, 0.686657, -1.553652],
        [700, 15.589968, 0.002, 0],
    ),
}


@pytest.mark.parametrize("name", GRIDS)
def test_steps_and_levels_of_diffusers(name):
    given, steps, levels = GRIDS[name]
    found, ratios = times_and_levels(given, len(steps))
    np.testing.assert_allclose(found, steps, rtol=1e-5, atol=1e-4)
    if levels is not None:
        np.testing.assert_allclose(ratios, levels, rtol=2e-5)


FLOWS = {
    "sd3": (config("FlowMatchEulerDiscrete", shift=3.0), None),
    "flux": (config("FlowMatchEulerDiscrete", **FLUX), 16),
}
SIGMAS = {
    "sd3": [1.0, 0.9003590941429138, 0.7511211037635803, 0.5029850602149963, 0.0089285718],
    "flux": [1.0, 0.8260643482208252, 0.6128659248352051, 0.3454189896583557],
}


@pytest.mark.parametrize("name", FLOWS)
def test_flow_matching_s_shifts(name):
    given, tokens = FLOWS[name]
    n = len(SIGMAS[name])
    more = {"tokens": tokens} if tokens else {}
    schedule, parameterization = noise_of(given)
    ts = sampling_of(given).grid(schedule, n, **more)
    np.testing.assert_allclose(ts, [*SIGMAS[name], 0], rtol=1e-5)
    np.testing.assert_allclose(parameterization(schedule, ts).c_noise, 1000 * ts, rtol=1e-6)


def ends(**settings):
    return times_and_levels(config("EulerDiscrete", **SD, **settings), 8)[1]


@pytest.mark.exhaustive
def test_where_a_grid_ends():
    """At clean data, or at the first step: the setting decides, and no step is of no length."""
    first = np.sqrt(0.00085 / (1 - 0.00085))
    assert ends()[-1] == 0
    lowest = ends(final_sigmas_type="sigma_min")  # the last spaced step is at the end already
    assert len(lowest) == 8
    np.testing.assert_allclose(lowest[-1], first, rtol=1e-4)
    given = config("DDIM", **SD, steps_offset=0, set_alpha_to_one=False)
    steps, levels = times_and_levels(given, 5)
    np.testing.assert_allclose(steps, [800, 600, 400, 200], atol=1e-3)
    np.testing.assert_allclose(levels[-1], first, rtol=1e-4)
    with pytest.raises(InputError, match="one step"):
        times_and_levels(given, 1)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("karras_sigmas", lambda r: r ** (1 / 7)),
        ("exponential_sigmas", np.log),
        ("beta_sigmas", None),
    ],
)
def test_noise_levels_between_steps(name, order):
    """They keep the table's ends; Karras' are even in the seventh root, and so on."""
    levels = ends(**{f"use_{name}": True})[:-1]
    np.testing.assert_allclose(levels[[0, -1]], ends()[[0, -2]], rtol=1e-4)
    if order:
        gaps = np.diff(order(levels))
        np.testing.assert_allclose(gaps, gaps.mean(), rtol=2e-3)
    else:  # the Beta distribution is symmetric, so that so are the levels
        np.testing.assert_allclose(levels + levels[::-1], levels.sum() / 4, rtol=1e-4)


def test_spacings_and_the_multistep_solvers_own():
    """diffusers' DPM-Solver spaces one step more and leaves out the last, cleanest one."""
    spaced = {
        ("DDIM", "linspace"): [999, 666, 333, 0],
        ("DDIM", "trailing"): [999, 749, 499, 249],
        ("DPMSolverMultistep", "leading"): [800, 600, 400, 200],
        ("DPMSolverMultistep", "trailing"): [999, 749, 499, 249],
    }
    for (kind, spacing), steps in spaced.items():
        found, _ = times_and_levels(config(kind, timestep_spacing=spacing), 4)
        np.testing.assert_allclose(found, steps, atol=1e-3)


def test_a_multistep_solver_between_steps_gives_whole_steps():
    given = config("DPMSolverMultistep", **SD, use_karras_sigmas=True)
    steps, levels = times_and_levels(given, 7)
    np.testing.assert_array_equal(steps, np.round(steps))
    exact = times_and_levels(config("EulerDiscrete", **SD, use_karras_sigmas=True), 7)
    np.testing.assert_allclose(levels, exact[1], rtol=1e-4)
    assert 0 < np.abs(steps - exact[0]).max() <= 0.51


def constant(value):
    """A denoiser that always says the same."""
    return lambda x, t, cond: Prediction(jnp.asarray(value)[None].repeat(x.shape[0], 0))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (config("DDPM", clip_sample=False), [4.0, -0.5, 1.0, 0.0]),
        (config("DDPM", clip_sample_range=2.0), [2.0, -0.5, 1.0, 0.0]),
        (config("DDPM"), [1.0, -0.5, 1.0, 0.0]),
        (config("PNDM", skip_prk_steps=True, clip_sample=True), [4.0, -0.5, 1.0, 0.0]),
        (
            config("DDPM", thresholding=True, dynamic_thresholding_ratio=1, sample_max_value=2.0),
            [1.0, -0.25, 0.5, 0.0],
        ),
        (
            config("DDPM", thresholding=True, dynamic_thresholding_ratio=1, sample_max_value=99.0),
            [1.0, -0.125, 0.25, 0.0],
        ),
    ],
)
def test_clipping_and_thresholding(given, said):
    x = jnp.zeros((2, 4))
    finish = sampling_of(given).finish
    np.testing.assert_allclose(finish(constant([4.0, -0.5, 1.0, 0.0]))(x, 0.5, None).x0[1], said)


TRAILING = {"clip_sample_range": 0.8, "timestep_spacing": "trailing"}
IMAGEN = {"clip_sample": False, "thresholding": True}
IMAGEN |= {"dynamic_thresholding_ratio": 0.7, "sample_max_value": 3.0}


@pytest.mark.parametrize(
    ("settings", "ode", "sde"),
    [
        (
            {"clip_sample": False},
            [0.53094, 0.55381, 0.5439, 0.53932],
            [0.53592, 0.54127, 0.53895, 0.53788],
        ),
        ({}, [0.55694, 0.26215, 0.48172, 0.52551], [0.53816, 0.43632, 0.53488, 0.53669]),
        (TRAILING, [0.55907, 0.14067, 0.40977, 0.51453], [0.53161, 0.4227, 0.52679, 0.53026]),
        (IMAGEN, [0.56305, 0.26215, 0.46947, 0.5103], [0.53816, 0.43632, 0.53488, 0.53647]),
        (
            {"prediction_type": "v_prediction"},
            [0.14538, 0.28426, 0.23238, 0.21835],
            [0.19805, 0.20393, 0.20653, 0.20743],
        ),
    ],
    ids=["plain", "clipped", "range", "threshold", "v"],
)
def test_ddim_clips_x0_and_keeps_eps(settings, ode, sde):
    """Four steps of diffusers' DDIM with the output 1.3 x - 0.4, and all draws 0.5 with eta 0.7."""
    given = config("DDIM", **settings)
    (schedule, parameterization), found = noise_of(given), sampling_of(given)
    ts = found.grid(schedule, 4)
    net = make_denoiser(lambda params, x, *_: 1.3 * x - 0.4, None, schedule, parameterization)
    for eta, wanted in ((0.0, ode), (0.7, sde)):
        x, sampler = jnp.asarray([[2.0, -1.0, 0.3, 0.9]]), found.sampler(schedule, eta=eta)
        for t, s in pairwise(ts):
            noise = jnp.full((1, 1, 4), 0.5)
            x, _ = sampler.step(noise, lambda x, t: found.finish(net)(x, t, None), x, t, s, ())
        np.testing.assert_allclose(x[0], wanted, atol=2e-5)


def test_the_sampler_and_its_options():
    for given, sampler, options in (
        (config("DDPM", variance_type="fixed_large"), samplers.ancestral, {"variance": "large"}),
        (
            config("DDPM", variance_type="learned_range"),
            samplers.ancestral,
            {"variance": "learned"},
        ),
        (config("UniPCMultistep", solver_order=3), samplers.unipc, {"order": 3, "variant": "bh2"}),
        (
            config("DPMSolverMultistep", algorithm_type="sde-dpmsolver++", solver_type="heun"),
            samplers.dpmpp_2m_sde,
            {"form": "heun"},
        ),
    ):
        found = sampling_of(given)
        assert (found.sampler, dict(found.options)) == (sampler, options)
        found.sampler(noise_of(given)[0], **found.options)


@pytest.mark.parametrize(
    "n", [3, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (2, 5, 15))]
)
def test_the_last_steps_of_short_runs_are_of_lower_order(n):
    """Of an infinitely smooth x0_hat: the weights of the past vanish in a step of order 1."""
    given = config(
        "DPMSolverMultistep",
        **SD,
        solver_order=3,
        final_sigmas_type="sigma_min",
        lower_order_final=True,
    )
    schedule, defaults = noise_of(given)[0], sampling_of(given)
    ts = defaults.grid(schedule, n)
    x = jnp.zeros((1, 2))
    weights = defaults.sampler(schedule, **defaults.options).init(x, ts).weights
    full = samplers.dpmpp_multistep(schedule, order=3).init(x, ts).weights
    second = samplers.dpmpp_multistep(schedule, order=2).init(x, ts).weights
    if n < 15:
        np.testing.assert_array_equal(weights[-1], 0)
        np.testing.assert_allclose(weights[-2], np.pad(second[-2], (0, 1)))
        np.testing.assert_allclose(weights[:-2], full[:-2])
    else:
        np.testing.assert_allclose(weights, full)


def test_snr_shift_scale_divides_the_snr():
    plain = config("CogVideoXDDIM", snr_shift_scale=1.0)
    shifted = config("CogVideoXDDIM", snr_shift_scale=3.0)
    t = jnp.linspace(0.001, 1, 7)
    a, b = (schedules.logsnr(noise_of(given)[0], t) for given in (plain, shifted))
    np.testing.assert_allclose(a - b, np.log(3.0), rtol=1e-3)
    assert noise_of(config("CogVideoXDDIM"))[0].alpha(1.0) == noise_of(shifted)[0].alpha(1.0)


def test_zero_snr_is_finite_for_schedulers_of_noise_levels():
    zero = {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    _, levels = times_and_levels(config("EulerDiscrete", **zero, timestep_spacing="trailing"), 4)
    np.testing.assert_allclose(levels[0], 4096, rtol=1e-3)
    _, levels = times_and_levels(config("DDIM", **zero, timestep_spacing="trailing"), 4)
    assert np.isinf(levels[0])


@pytest.mark.parametrize(
    ("given", "std"),
    [
        (config("DDIM", **SD, **LEADING), 1.0),
        (config("EulerDiscrete", **SD), 14.614647 / np.sqrt(1 + 14.614647**2)),
        (config("EulerDiscrete", **SD, timestep_spacing="leading"), 1.0),
        (config("FlowMatchEulerDiscrete"), 1.0),
    ],
)
def test_what_sampling_begins_with(given, std):
    schedule, _ = noise_of(given)
    defaults = sampling_of(given)
    np.testing.assert_allclose(defaults.start_std(schedule, defaults.grid(schedule, 4)[0]), std)


REFUSED = {
    "class": (config("Kandinsky"), "KandinskyScheduler'; expected one of"),
    "unknown": (config("DDIM", clip_samples=True), "'clip_samples'; did you mean 'clip_sample'"),
    "type": (config("DDIM", clip_sample="yes"), "clip_sample to be true or false; got 'yes'"),
    "null": (config("DDIM", num_train_timesteps=None), "num_train_timesteps to be a number"),
    "spacing": (config("DDIM", timestep_spacing="log"), "timestep_spacing = 'log'"),
    "prk": (config("PNDM"), "skip_prk_steps = False"),
    "variance": (config("DDPM", variance_type="own"), "variance_type = 'own'"),
    "algorithm": (config("DPMSolverMultistep", algorithm_type="dpmsolver"), "algorithm_type"),
    "solver": (config("DPMSolverMultistep", solver_type="heun"), "solver_type = 'heun'"),
    "end": (config("EulerDiscrete", final_sigmas_type="one"), "final_sigmas_type = 'one'"),
    "interpolation": (config("EulerDiscrete", interpolation_type="log_linear"), "log_linear"),
    "levels": (
        config("EulerDiscrete", use_karras_sigmas=True, use_beta_sigmas=True),
        "expected one of use_karras_sigmas, use_beta_sigmas",
    ),
    "flow": (config("DPMSolverMultistep", use_flow_sigmas=True), "prediction_type = 'epsilon'"),
    "prediction": (config("DDIM", prediction_type="flow_prediction"), "flow_prediction"),
    "betas": (config("DDIM", trained_betas=[0.1, 0.2]), "trained_betas of num_train_timesteps"),
    "stochastic": (config("FlowMatchEulerDiscrete", stochastic_sampling=True), "stochastic"),
    "range": (
        config("DDIM", thresholding=True, dynamic_thresholding_ratio=99.5),
        "from 1e-06 to 1",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_is_not_built_is_refused_by_name(name):
    given, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        noise_of(given), sampling_of(given)


def test_numbers_as_strings_and_settings_of_other_schedulers():
    """Published files have both: "1000", and the clip_sample of DDIM in a PNDM file."""
    given = config("PNDM", **SD, num_train_timesteps="1000", skip_prk_steps=True, clip_sample=False)
    assert sampling_of(given).sampler is samplers.plms
    assert noise_of(given)[0].t_min == 1 / 1000
