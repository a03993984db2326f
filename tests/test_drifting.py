"""Drifting models: what the field must be, and generators that follow it."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import network_of
from test_distill_losses import CIRCLE, DATA, WRONG, gradients, z_scores

from diffjax import distill
from diffjax.parameterization import predict_v
from diffjax.types import Prediction

FIELD = jax.jit(distill.drift)
DRIFTED = jax.jit(distill.drifted, static_argnums=3)


@pytest.fixture
def sets(x64):
    """Points x (5, 3), data (6, 3) and samples (4, 3)."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 3)) for n in (5, 6, 4)]


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_field_changes_its_sign_with_the_sets_and_vanishes_where_they_are_one(
    sets, temperature
):
    x, data, samples = sets
    there = FIELD(x, data, samples, temperature)
    back = FIELD(x, samples, data, temperature)
    np.testing.assert_allclose(there, -back, atol=1e-14)
    assert np.abs(there).max() > 1e-3
    np.testing.assert_allclose(FIELD(x, data, data[::-1], temperature), 0, atol=1e-14)


def test_the_field_of_two_points(sets):
    """Of one x every pair is whole along x: sqrt(p (1 - p)) (y+ - y-), p by a logistic law."""
    x, data, samples = sets
    x, near, far = x[:1], data[:1], samples[:1]
    gap = np.linalg.norm(x - far) - np.linalg.norm(x - near)
    p = 1 / (1 + np.exp(-gap / 0.7))
    wanted = np.sqrt(p * (1 - p)) * (near - far)
    np.testing.assert_allclose(FIELD(x, near, far, 0.7), wanted, rtol=1e-12)


def test_labels_do_not_see_each_other(sets):
    """The field of a batch of two labels is the two fields, each sample apart from itself."""
    x = np.concatenate(sets)[:8]
    data = x[::-1] + 0.3
    label = jnp.asarray([0, 1, 1, 0, 1, 0, 0, 1])
    weight = distill.kernel_weights(distill.same_label({"label": label}))
    both = FIELD(x, data, x, 0.5, weight)
    for which in (0, 1):
        at = label == which
        alone = distill.kernel_weights(jnp.ones((4, 4)))
        wanted = FIELD(x[at], data[at], x[at], 0.5, alone)
        np.testing.assert_allclose(both[at], wanted, atol=1e-14)


def test_a_scale_is_the_share_of_data_among_what_repels(x64):
    """1 / (1 - gamma) = the scale: Deng et al. 2026, section 3.5."""
    alike = distill.same_label({"label": jnp.asarray([0, 0, 0, 1, 1, 1])})
    scale = jnp.asarray([1.0, 1.5, 3.0, 1.0, 2.0, 4.0])
    _, own, any_label = np.split(np.asarray(distill.kernel_weights(alike, scale)), 3, 1)
    gamma = any_label.sum(1) / (own.sum(1) + any_label.sum(1))
    np.testing.assert_allclose(1 / (1 - gamma), scale, rtol=1e-12)


def test_the_normalised_field_has_no_unit_and_no_origin(sets):
    x, data, samples = sets
    temperatures = (0.05, 0.2, 0.7)
    size, field, lengths = DRIFTED(x, data, samples, temperatures)
    moved = DRIFTED(*(40 * a - 7 for a in sets), temperatures)
    for got, wanted in zip(moved, (40 * size, field, lengths), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9)
    others = np.concatenate([data, samples])
    mean = np.mean(np.linalg.norm(x[:, None] - others[None], axis=-1))
    np.testing.assert_allclose(size, mean / np.sqrt(3), rtol=1e-12)


@pytest.mark.exhaustive
def test_the_loss_has_no_slope_at_the_law_of_the_data(x64):
    """`gradients` draws data of one Gaussian law; the generator has that law, or another."""

    def worst(law):
        mean, std = float(law.means[0, 0]), float(law.stds[0])
        exact = network_of(lambda x, t, cond: Prediction(mean + std * x), CIRCLE, predict_v)
        loss = distill.drifting(exact, CIRCLE, predict_v, (0.2, 0.5))
        return np.abs(z_scores(gradients(loss, n=32))).max()

    assert worst(DATA) < 4.5
    assert worst(WRONG) > 20


@pytest.mark.exhaustive
def test_a_small_generator_learns_a_mixture():
    """Sorted draws against exact quantiles, root mean square; the data's deviation is 1.15."""
    path = Path(__file__).parents[1] / "benchmarks" / "few_step.py"
    spec = importlib.util.spec_from_file_location("few_step_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert benchmark.run(3000, ("drifting",), width=32)["drifting"][0] < 0.2
