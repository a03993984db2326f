"""Post-hoc EMA against averages that were truly kept."""

import numpy as np
import pytest
from scipy.integrate import quad

from diffjax.errors import InputError
from diffjax.training import posthoc_ema as ema

KEPT = (0.05, 0.10)


def path(n=4000):
    """A wandering parameter with a trend, as in training."""
    noise = np.random.default_rng(0).standard_normal((n, 3))
    return np.cumsum(noise, axis=0) * 0.02 + np.log1p(np.arange(n))[:, None]


def kept(theta, gamma, steps):
    """The running average at some steps, by its recursion."""
    found, average = {}, np.full(theta.shape[1], np.nan)
    decay = ema.power_ema(ema.length_of(gamma))
    for t, now in enumerate(theta, start=1):
        beta = decay(t - 1)
        average = beta * np.nan_to_num(average) + (1 - beta) * now
        if t in steps:
            found[t] = average
    return found


def test_exponents_of_the_paper():
    np.testing.assert_allclose(ema.gamma_of(0.05), 16.97, atol=5e-3)
    np.testing.assert_allclose(ema.gamma_of(0.10), 6.94, atol=5e-3)
    for length in (0.01, 0.1, 0.25):
        np.testing.assert_allclose(ema.length_of(ema.gamma_of(length)), length)


def test_length_is_the_profiles_standard_deviation():
    gamma, t = ema.gamma_of(0.15), 7.0

    def moment(k):
        return quad(lambda s: s**k * (gamma + 1) * s**gamma / t ** (gamma + 1), 0, t)[0]

    np.testing.assert_allclose(np.sqrt(moment(2) - moment(1) ** 2) / t, 0.15)


@pytest.mark.parametrize(("t1", "t2"), [(2.0, 5.0), (5.0, 2.0), (3.0, 3.0)])
def test_inner_product_is_the_integral(t1, t2):
    g1, g2 = 6.9, 3.3

    def product(s):
        return (g1 + 1) * s**g1 / t1 ** (g1 + 1) * (g2 + 1) * s**g2 / t2 ** (g2 + 1)

    wanted = quad(product, 0, min(t1, t2))[0]
    np.testing.assert_allclose(ema.inner_product(t1, g1, t2, g2), wanted)


def test_the_recursion_is_the_powers_weighted_mean():
    theta, gamma = path(300), ema.gamma_of(0.1)
    edges = (np.arange(301) / 300) ** (gamma + 1)
    wanted = np.diff(edges) @ theta
    np.testing.assert_allclose(kept(theta, gamma, {300})[300], wanted)


def distance(x, at, gammas, gamma):
    """The relative L2 distance of profiles, by sums over a fine grid."""
    s = (np.arange(200_000) + 0.5) / 200_000 * 4000

    def profile(t, g):
        return np.where(s <= t, (g + 1) * (s / t) ** g / t, 0)

    wanted = profile(4000, gamma)
    made = sum(w * profile(t, g) for w, t, g in zip(x, at, gammas, strict=True))
    return np.linalg.norm(made - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("length", [0.05, 0.07, 0.10, 0.12, 0.15])
def test_rebuilt_averages_are_those_kept(length):
    theta, steps = path(), range(200, 4001, 200)
    snapshots, at, gammas = [], [], []
    for gamma in map(ema.gamma_of, KEPT):
        for t, average in kept(theta, gamma, set(steps)).items():
            snapshots.append({"w": average})
            at.append(t)
            gammas.append(gamma)
    gamma = ema.gamma_of(length)
    x, misfit = ema.weights(at, gammas, 4000, gamma)
    got = ema.combine(snapshots, x)["w"]
    wanted = kept(theta, gamma, {4000})[4000]
    exact = length in KEPT
    np.testing.assert_allclose(got, wanted, atol=1e-7 if exact else 5e-3)
    np.testing.assert_allclose(misfit, distance(x, at, gammas, gamma), atol=1e-5)
    moved = np.abs(snapshots[-1]["w"] - wanted).max()  # the longest average that was kept
    assert exact or np.abs(got - wanted).max() < 0.1 * moved


def test_refusals():
    with pytest.raises(InputError, match=r"below 0.2887; got 0.3"):
        ema.gamma_of(0.3)
    with pytest.raises(InputError, match="last snapshot is of step 5; got step 6"):
        ema.weights([5], [2.0], 6, 2.0)
    with pytest.raises(InputError, match="one gamma per snapshot"):
        ema.weights([5], [], 5, 2.0)
    with pytest.raises(InputError, match=r"two or more, such as 0.05 0.10; got 0.1"):
        ema.power_averages([0.1])


def test_power_averages_are_told_from_others():
    averages = {"ema": ema.PowerEma.__call__, **ema.power_averages((0.05, 0.1))}
    assert ema.lengths_of(averages) == {"power_0.05": 0.05, "power_0.1": 0.1}
