"""The samples of public reference implementations; `golden/README.md` says which made what.

A new solver is one row of SIGMA_SPACE or DISCRETE_TIME: its name in the file and its
constructor.
"""

from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Mixture, drive, exact_denoiser

from diffjax import grids, samplers, schedules

FOLDER = Path(__file__).parent / "golden"
T = 1000

SIGMA_SPACE = {
    "euler": samplers.euler,
    "heun": samplers.heun,
    "dpmpp_2m": samplers.dpmpp_2m,
}
DISCRETE_TIME = {
    "ddim0": partial(samplers.ddim, eta=0.0),
    "ddim0.5": partial(samplers.ddim, eta=0.5),
    "ddim1": partial(samplers.ddim, eta=1.0),
    "ddpm_small": partial(samplers.ancestral, variance="small"),
    "ddpm_large": partial(samplers.ancestral, variance="large"),
    "dpmpp_2m": samplers.dpmpp_2m,
}
SIGMA_GRIDS = {"karras": grids.karras, "exponential": grids.uniform_logsnr}
SPACINGS = {"leading": grids.leading, "trailing": grids.trailing, "linspace": grids.linspace}
BETAS = {"linear": schedules.linear_betas, "cosine": schedules.cosine_betas}

pytestmark = pytest.mark.usefixtures("x64")


def cases(file, solvers):
    """Every case of a file whose solver is in the table."""
    names = sorted({entry.split("/")[0] for entry in np.load(FOLDER / file).files})
    chosen = [name for name in names if name.split("-")[0] in solvers]
    assert {name.split("-")[0] for name in chosen} == set(solvers)
    return chosen


def load(file, case):
    """The entries of a case, with the mixture and the noise that all share."""
    data = np.load(FOLDER / file)
    prefix = f"{case}/"
    own = {k.removeprefix(prefix): data[k] for k in data.files if k.startswith(prefix)}
    mixture = Mixture(*(data[f"problem/{k}"] for k in ("weights", "means", "stds")))
    return own, mixture, jnp.asarray(data["problem/z"], float)


@pytest.mark.parametrize("case", cases("k_sigma_space.npz", SIGMA_SPACE))
def test_k_diffusion(case):
    solver, grid, n = case.split("-")
    data, mixture, z = load("k_sigma_space.npz", case)
    schedule = schedules.edm(0.02, 80.0)
    ts = data["sigmas"]
    if grid in SIGMA_GRIDS:
        ours = SIGMA_GRIDS[grid](schedule, int(n))
        np.testing.assert_allclose(ours, ts, rtol=1e-12)
    schedule = schedules.edm(0.02, max(80.0, float(ts[0])))
    sampler = SIGMA_SPACE[solver](schedule)
    denoiser = exact_denoiser(mixture, schedule)
    x, trace = drive(sampler, denoiser, z * ts[0], ts, data.get("noise", ()))
    np.testing.assert_allclose(x, data["result"], atol=1e-9)
    np.testing.assert_allclose(trace, data["trace"], atol=1e-9)


@pytest.mark.parametrize("case", cases("discrete_time.npz", DISCRETE_TIME))
def test_diffusers(case):
    solver, betas, spacing, n = case.split("-")
    data, mixture, z = load("discrete_time.npz", case)
    schedule = schedules.from_betas(BETAS[betas](T))
    ts = SPACINGS[spacing](schedule, int(n), T)
    np.testing.assert_allclose(ts[:-1] * T - 1, data["timesteps"], atol=1e-9)
    # Their tables are cumulated in float32, which shows where alpha_bar is 1e-9.
    alpha_bar = schedule.alpha(jnp.arange(1, T + 1) / T) ** 2
    np.testing.assert_allclose(alpha_bar, data["alphas_cumprod"], rtol=1e-3, atol=1e-6)
    sampler = DISCRETE_TIME[solver](schedule)
    denoiser = exact_denoiser(mixture, schedule)
    x, trace = drive(sampler, denoiser, z, ts, data.get("noise", ()))
    np.testing.assert_allclose(x, data["result"], atol=5e-4)
    np.testing.assert_allclose(trace, data["trace"], atol=5e-4)
