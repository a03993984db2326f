"""Editing and inverse problems: released samplers, adjoints, and exact posteriors."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import exact_denoiser, gaussian, reverse_moments

from diffjax import editing, grids, guidance, prior_sample, sample, samplers, schedules
from diffjax.diffusion import sample_keys, step_noise
from diffjax.errors import InputError

HERE = Path(__file__).parent
SLOW = pytest.mark.exhaustive
CIRCLE = schedules.vp_cosine()
SHAPE = (8, 8, 3)


def adapter():
    """How golden checks call the project, as a module."""
    path = HERE / "adapters" / "editing.py"
    spec = importlib.util.spec_from_file_location("editing_adapter", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases():
    """Golden arrays by case, and their problem."""
    made = {}
    with np.load(HERE / "golden" / "editing.npz") as file:
        for name in file.files:
            case, key = name.split("/")
            made.setdefault(case, {})[key] = file[name]
    return made, made.pop("problem")


CASES, PROBLEM = cases()
QUICK = ("ddrm-sr2",)


def golden_rows():
    """(function, wanted key, case) of every run."""
    for case in CASES:
        kind = case.split("-")[0]
        if kind in ("strength", "repaint_schedule"):
            continue
        marks = () if case in QUICK else SLOW
        wanted = {"ddpm_inversion": "zs"}.get(kind, "result")
        if not kind.startswith(("linear", "sdedit_gauss")):
            yield pytest.param(f"run_{kind}", wanted, case, marks=marks)
        if kind == "ddim_inversion":
            yield pytest.param("run_ddim_reconstruction", "reconstruction", case, marks=SLOW)
        if "current_result" in CASES[case]:
            yield pytest.param("run_ddim_inversion_current", "current_result", case, marks=SLOW)
        if kind == "ddpm_inversion":
            yield pytest.param("run_ddpm_inversion_edit", "edit", case, marks=SLOW)


@pytest.mark.parametrize(("function", "wanted", "case"), golden_rows())
def test_released_samplers(function, wanted, case):
    got = adapter().FUNCTIONS[function](CASES[case], PROBLEM)
    np.testing.assert_allclose(got, CASES[case][wanted], atol=1e-6)


@SLOW
@pytest.mark.parametrize("case", ["linear_gauss-sr2", "linear_mixture-blur", "sdedit_gauss-0.5"])
def test_closed_forms(case):
    got = adapter().FUNCTIONS[case.split("-")[0]](CASES[case], PROBLEM)
    shared = [key for key in got if key in CASES[case]]
    assert len(shared) >= 4
    for key in shared:
        np.testing.assert_allclose(got[key], CASES[case][key], atol=1e-6, err_msg=key)


def test_strength_and_repaint_times():
    strength = CASES["strength-leading"]
    for n, value, skipped in zip(*(strength[k] for k in ("n", "strength", "skipped")), strict=True):
        assert editing.strength_steps(int(n), float(value)) == skipped
    times = CASES["repaint_schedule-50-5-3"]["times"]
    np.testing.assert_array_equal(editing.repaint_times(50, 5, 3), times)


# --- operators ---------------------------------------------------------------------------


def operators():
    """Every linear operator, on images of SHAPE."""
    g = np.random.default_rng(0)
    kernel = jnp.asarray(g.random((3, 3)))
    return {
        "inpainting": editing.inpainting(jnp.asarray(g.random(SHAPE) < 0.5, float)),
        "super_resolution": editing.super_resolution(4),
        "blur": editing.blur(kernel, SHAPE[:2]),
        "gaussian_blur": editing.blur(editing.gaussian_kernel(5, 1.2), SHAPE[:2]),
        "colourisation": editing.colourisation(3),
        "compressed_sensing": editing.compressed_sensing(jax.random.key(0), SHAPE, 40),
        "matrix": editing.from_matrix(g.standard_normal((11, 192)), SHAPE),
    }


NAMES = (
    *("inpainting", "super_resolution", "blur", "gaussian_blur", "colourisation"),
    *("compressed_sensing", "matrix"),
)


@pytest.mark.parametrize(
    "name", [NAMES[1], *(pytest.param(n, marks=SLOW) for n in NAMES[:1] + NAMES[2:])]
)
def test_operator(name, x64):
    """The adjoint, f(A A') and the pseudo-inverse, against the matrix of the operator."""
    operator = operators()[name]
    basis = jnp.eye(192).reshape(192, *SHAPE)
    matrix = np.asarray(operator.apply(basis).reshape(192, -1)).T  # (m, 192)
    g = np.random.default_rng(1)
    x = jnp.asarray(g.standard_normal((2, *SHAPE)))
    y = jnp.asarray(g.standard_normal(operator.apply(x).shape))
    flat_y = np.asarray(y).reshape(2, -1)
    np.testing.assert_allclose(
        np.asarray(operator.adjoint(y)).reshape(2, -1), flat_y @ matrix, atol=1e-9
    )
    eigenvalues, vectors = np.linalg.eigh(matrix @ matrix.T)
    wanted = flat_y @ (vectors / (0.3 + eigenvalues)) @ vectors.T
    got = operator.function(lambda e: 1 / (0.3 + e), y)
    np.testing.assert_allclose(np.asarray(got).reshape(2, -1), wanted, atol=1e-9)
    measured = operator.apply(x)
    back = editing.pseudo_inverse(operator, measured)
    if name not in ("blur", "gaussian_blur"):  # their small eigenvalues are a matter of rounding
        wanted = np.asarray(measured).reshape(2, -1) @ np.linalg.pinv(matrix).T
        np.testing.assert_allclose(np.asarray(back).reshape(2, -1), wanted, atol=1e-8)
    eigenvalues, vectors = np.linalg.eigh(matrix.T @ matrix)
    wanted = np.asarray(x).reshape(2, -1) @ (vectors * np.cos(eigenvalues)) @ vectors.T
    got = editing.on_data(operator, jnp.cos, x)
    np.testing.assert_allclose(np.asarray(got).reshape(2, -1), wanted, atol=1e-8)


def test_phase_retrieval_forgets_the_sign(x64):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 4, 1)))
    magnitude = editing.phase_retrieval(2)
    np.testing.assert_allclose(magnitude(x), magnitude(-x))
    energy = jnp.sum(magnitude(x) ** 2)  # Parseval
    np.testing.assert_allclose(energy, jnp.sum(x**2), rtol=1e-9)


@SLOW
def test_jpeg_is_pillows():
    """One channel of Pillow's JPEG up to its rounding, but for a tie in one block of eight."""
    from io import BytesIO

    from PIL import Image

    g = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(g.standard_normal((16, 16)), 0), 1)
    image = np.uint8(np.clip(128 + 6 * smooth, 0, 255))
    close = []
    for quality in (30, 80):
        file = BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=quality)
        theirs = np.asarray(Image.open(file), float)
        x = jnp.asarray(image, float)[None, :, :, None] / 127.5 - 128 / 127.5
        ours = np.clip(np.asarray(editing.jpeg(quality)(x))[0, :, :, 0] * 127.5 + 128, 0, 255)
        close.append(np.abs(ours - theirs).reshape(2, 8, 2, 8).max((1, 3)) < 1)
    assert np.sum(close) >= 7


# --- exact posteriors --------------------------------------------------------------------


def scalar_posterior(prior_variance, noise_std, y):
    """Mean and variance of N(0, prior_variance) given y = x + noise."""
    gain = prior_variance / (prior_variance + noise_std**2)
    return gain * y, (1 - gain) * prior_variance


@SLOW
def test_pigdm_with_the_right_variance_is_exact(x64):
    """For normal data with r^2 the variance of x0 given x_t, sampling is posterior sampling."""
    y, noise_std, n = 0.4, 0.2, 20_000
    mean, variance = scalar_posterior(0.25, noise_std, y)

    def right(schedule, t):
        return (
            0.25 * schedule.sigma(t) ** 2 / (0.25 * schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2)
        )

    def draw(rule):
        denoiser = editing.pigdm(
            exact_denoiser(gaussian([0.0], 0.5), CIRCLE),
            CIRCLE,
            editing.from_matrix(np.eye(1)),
            jnp.full((n, 1), y),
            noise_std,
            rule,
        )
        x = prior_sample(jax.random.key(0), CIRCLE, (n, 1))
        ts = grids.uniform_logsnr(CIRCLE, 60)
        return sample(jax.random.key(1), denoiser, samplers.dpmpp_2m(CIRCLE), x, ts)

    exact, usual = draw(right), draw(editing.guided_variance)
    np.testing.assert_allclose([exact.mean(), exact.std()], [mean, np.sqrt(variance)], atol=0.006)
    assert abs(float(usual.std()) - np.sqrt(variance)) > 0.02  # PiGDM's own r^2 is not


def test_replacement_keeps_the_path_of_a_sampler_s_draws():
    """`dpmpp_sde` draws twice along one path, and the known part's draw is another."""
    sampler = samplers.dpmpp_sde(CIRCLE)
    held = editing.replacement(CIRCLE, sampler, jnp.zeros((1, 2)), jnp.zeros(2))
    t, s = jnp.asarray(0.5), jnp.asarray(0.25)
    assert held.draws == 3
    np.testing.assert_array_equal(held.inner(t, s), sampler.inner(t, s))


@SLOW
def test_replacement_ends_near_the_image():
    known, mask = jnp.ones((3, 2)), jnp.asarray([1.0, 0.0])
    sampler = editing.replacement(CIRCLE, samplers.ddim(CIRCLE), known, mask)
    ts = grids.uniform_logsnr(CIRCLE, 12)
    x = prior_sample(jax.random.key(0), CIRCLE, (3, 2))
    denoiser = exact_denoiser(gaussian([0.0, 0.0], 1.0), CIRCLE)
    y = sample(jax.random.key(1), denoiser, sampler, x, ts)
    np.testing.assert_allclose(y[:, 0], 1, atol=0.02)
    assert jnp.abs(y[:, 1] - 1).min() > 0.02


@SLOW
def test_ddpm_inversion_comes_back(x64):
    x0 = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3)))
    ts = grids.uniform_logsnr(CIRCLE, 8)
    noise = jax.random.normal(jax.random.key(0), (8, 2, 3))
    denoiser = exact_denoiser(gaussian([0.3] * 3, 0.8), CIRCLE)
    start, maps = editing.ddpm_inversion(CIRCLE, denoiser, x0, ts[:-1], noise[:-1])
    back = editing.replay(CIRCLE, denoiser, start, ts[:-1], maps)
    np.testing.assert_allclose(back, x0, atol=1e-9)


@SLOW
@pytest.mark.parametrize(
    ("variance", "twist_variance", "distance"),
    [
        (lambda schedule, t: 0.0 * t, lambda tau: 0.0, 0.143),  # DPS
        (editing.guided_variance, lambda tau: tau / (1 + tau), 0.072),  # PiGDM
        (lambda s, t: s.sigma(t) ** 2 / (s.alpha(t) ** 2 + 4 * s.sigma(t) ** 2), None, 0.0),
    ],
    ids=["dps", "pigdm", "exact"],
)
def test_a_score_of_the_measurement_is_off_by_what_theory_says(
    variance, twist_variance, distance, x64
):
    """Prior N(0, 1/4), noise of variance 0.04, y = 1: the Wasserstein-2 distance of two normals."""
    prior, noise, y, n = 0.25, 0.04, 1.0, 20_000
    mean, var = scalar_posterior(prior, noise**0.5, y)
    wanted = mean, np.sqrt(var)
    if twist_variance:
        wanted = reverse_moments(twist_variance)
    np.testing.assert_allclose(
        np.hypot(wanted[0] - mean, wanted[1] - var**0.5), distance, atol=1e-3
    )
    denoiser = exact_denoiser(gaussian([0.0], 0.5), CIRCLE)
    given = jnp.full((n, 1), y)
    score = editing.pigdm(
        denoiser, CIRCLE, editing.from_matrix(np.eye(1)), given, noise**0.5, variance
    )
    x = prior_sample(jax.random.key(0), CIRCLE, (n, 1))
    run = jax.jit(lambda x, ts: sample(jax.random.key(1), score, samplers.ancestral(CIRCLE), x, ts))
    drawn = run(x, grids.uniform_logsnr(CIRCLE, 1000))
    np.testing.assert_allclose([drawn.mean(), drawn.std()], wanted, atol=0.006)


# The problem of the table: prior N(0, 0.25), noise of variance 0.04, measurement 0.4.
Y, NOISE, COUNT = 0.4, 0.2, 8000


def scalar_problem():
    """The exact denoiser, noise at t_max, a grid, and the posterior's mean and deviation."""
    mean, variance = scalar_posterior(0.25, NOISE, Y)
    x = prior_sample(jax.random.key(0), CIRCLE, (COUNT, 1))
    denoiser = exact_denoiser(gaussian([0.0], 0.5), CIRCLE)
    return denoiser, x, grids.uniform_logsnr(CIRCLE, 60), mean, np.sqrt(variance)


@SLOW
@pytest.mark.parametrize("variance", ["usual", "wide"])
def test_twisted_smc_is_the_posterior_whatever_the_twist(variance, x64):
    """Within statistical bounds for PiGDM's twist and for one of another width."""
    denoiser, x, ts, mean, std = scalar_problem()

    def log_likelihood(x0, t):
        r2 = CIRCLE.sigma(t) ** 2 * (1.0 if variance == "usual" else 3.0)
        total = r2 + NOISE**2
        return -((Y - x0[:, 0]) ** 2) / (2 * total) - jnp.log(total) / 2

    run = jax.jit(lambda key, x: editing.twisted_smc(key, CIRCLE, denoiser, log_likelihood, x, ts))
    drawn = run(jax.random.key(3), x)
    assert drawn.effective.min() > COUNT / 20
    np.testing.assert_allclose([drawn.x.mean(), drawn.x.std()], [mean, std], atol=0.015)


def test_systematic_resampling():
    chosen = guidance.systematic(jax.random.key(0), jnp.log(jnp.asarray([0.5, 0.25, 0.25, 1e-30])))
    np.testing.assert_array_equal(np.bincount(chosen, minlength=4), [2, 1, 1, 0])


@SLOW
def test_daps_is_exact_for_normal_data(x64):
    """With the true variance of x0 given x_t, and Langevin steps that are small and many."""
    denoiser, x, ts, mean, std = scalar_problem()

    def spread(schedule, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return 0.25 * sigma**2 / (0.25 * alpha**2 + sigma**2)

    run = jax.jit(
        lambda key, x: editing.daps(
            key,
            CIRCLE,
            lambda x, t: denoiser(x, t, None).x0,
            lambda x0: -((Y - x0[:, 0]) ** 2) / (2 * NOISE**2),
            x,
            ts[::6],
            rate=0.01,
            steps=300,
            variance=spread,
        )
    )
    y = run(jax.random.key(4), x)
    np.testing.assert_allclose([y.mean(), y.std()], [mean, std], atol=0.015)


@SLOW
def test_dps_is_off(x64):
    """Its error on the scalar problem is no matter of steps."""
    denoiser, x, _, mean, std = scalar_problem()
    sampler = editing.dps(CIRCLE, lambda x: x, jnp.full((COUNT, 1), Y), 0.3)
    run = jax.jit(lambda x, ts: sample(jax.random.key(5), denoiser, sampler, x, ts))
    y = run(x, grids.uniform_logsnr(CIRCLE, 120))
    assert max(abs(y.mean() - mean), abs(y.std() - std)) > 0.05


# --- noise that is given ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [samplers.ancestral, pytest.param(samplers.dpmpp_sde, marks=SLOW)])
def test_given_noise_takes_the_place_of_the_keys(make, x64):
    """The key's own draws, given, are the same sample; others are not; a wrong shape is said."""
    sampler, ts = make(CIRCLE), grids.uniform_logsnr(CIRCLE, 4)
    key, x = jax.random.key(3), jnp.ones((2, 3))
    denoiser = exact_denoiser(gaussian([0.3] * 3, 0.8), CIRCLE)
    keys = sample_keys(jax.random.clone(key), 2)
    each = [step_noise(keys, i, sampler.draws, x) for i in range(4)]
    draw = jax.jit(lambda key, noise: sample(key, denoiser, sampler, x, ts, noise=noise))
    drawn = sample(key, denoiser, sampler, x, ts)
    np.testing.assert_allclose(draw(jax.random.key(9), jnp.stack(each)), drawn, atol=1e-12)
    assert jnp.abs(draw(jax.random.key(9), jnp.stack(each[::-1])) - drawn).max() > 0.01
    with pytest.raises(InputError, match=r"noise must be .* got \(3, "):
        sample(jax.random.key(0), denoiser, sampler, x, ts, noise=jnp.stack(each[:3]))


# --- interpolation and FlowEdit ----------------------------------------------------------


@SLOW
def test_slerp_and_mix_keep_the_law(x64):
    a, b = jax.random.normal(jax.random.key(0), (2, 20_000, 8))
    for y in (editing.slerp(a, b, 0.3), editing.mix(jnp.stack([a, b]), jnp.asarray([3.0, 4.0]))):
        np.testing.assert_allclose(jnp.mean(y**2), 1, atol=0.02)
    np.testing.assert_allclose(editing.slerp(a, b, 0.0), a, atol=1e-12)
    np.testing.assert_allclose(editing.slerp(a, a, 0.4), a, atol=1e-5)


@SLOW
def test_flow_edit_moves_a_gaussian(x64):
    """Between two normal laws of one width the edit is the shift of their means, exactly."""
    line = schedules.rectified_flow()
    source, target = (exact_denoiser(gaussian([m, 0.0], 0.4), line) for m in (-1.0, 2.0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 2)))
    ts = jnp.linspace(0.999, 0.0, 400)
    noise = jax.random.normal(jax.random.key(0), (399, 1, 5, 2))
    bind = lambda denoiser: lambda x, t: denoiser(x, t, None)  # noqa: E731
    y = editing.flow_edit(line, bind(source), bind(target), x, ts, noise)
    np.testing.assert_allclose(y - x, jnp.asarray([[3.0, 0.0]] * 5), atol=0.03)


# --- bad input ---------------------------------------------------------------------------


def test_bad_input_is_said():
    for strength in (0.0, 1.2):
        with pytest.raises(InputError, match="strength"):
            editing.strength_steps(10, strength)
    with pytest.raises(InputError, match=r"mask .* \(2, 2, 1\)"):
        editing.fill(jnp.ones((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1)))
    with pytest.raises(InputError, match="multiples of 3"):
        editing.super_resolution(3).apply(jnp.ones((1, 8, 8, 1)))
    with pytest.raises(InputError, match="quality"):
        editing.jpeg(0)
    with pytest.raises(InputError, match="measurements"):
        editing.compressed_sensing(jax.random.key(0), (2,), 3)
    with pytest.raises(InputError, match="kernel"):
        editing.blur(jnp.ones((5, 5)), (4, 4))
    with pytest.raises(InputError, match="repaint_times"):
        editing.repaint_times(10, 0, 1)
    operator, x = editing.super_resolution(2), jnp.ones((1, 4, 4, 1))
    sampler = editing.ddrm(CIRCLE, operator, jnp.ones((1, 4, 4, 1)), 0.1)
    with pytest.raises(InputError, match="measurement"):
        sampler.init(x, jnp.asarray([1.0, 0.0]))
