"""DreamBooth's source: the loss of the mixture is that of Ruiz et al. 2023, Eq. 2."""

import jax
import numpy as np
import pytest
from PIL import Image

from diffjax import conditioning, data, recipe, schedules
from diffjax.errors import InputError
from diffjax.parameterization import predict_v
from diffjax.run.dreambooth import prompted, samples_of, subject


def source(values):
    """One pixel images of these values."""
    x = np.asarray(values, np.float32).reshape(-1, 1, 1, 1)
    return data.Source(data.Arrays(x=x), (1, 1, 1), 0)


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [(5, 5, 1.0), (3, 6, 2.0), (4, 4, 0.25), (5, 40, 1.0), (2, 3, 0.5)],
)
def test_the_mean_of_an_epoch_weighs_both(first, second, weight):
    """L(mixed) = (L(first) + weight L(second)) / (1 + weight), each of its own examples' mean."""
    g = np.random.default_rng(0)
    a, b = source(g.standard_normal(first)), source(g.standard_normal(second))
    both = data.mixed(a, b, weight)
    epochs = [both.examples[i]["x"].item() for i in range(len(both.examples))]
    shares = [sum(v in np.ravel(s.examples.arrays["x"]) for v in epochs) for s in (a, b)]
    assert shares[1] / shares[0] == pytest.approx(weight, rel=0.1)
    assert {*epochs} == {*map(float, np.ravel(a.examples.arrays["x"]))} | {
        *map(float, np.ravel(b.examples.arrays["x"]))
    }
    if shares[0] % first == shares[1] % second == 0:
        loss = lambda values: np.mean(np.square(values))  # noqa: E731
        parts = [loss(s.examples.arrays["x"]) for s in (a, b)]
        assert loss(epochs) == pytest.approx((parts[0] + weight * parts[1]) / (1 + weight))


def test_sources_of_two_kinds_are_not_mixed():
    with pytest.raises(InputError, match="sources of one kind"):
        data.mixed(source([1]), data.Source(data.Arrays(x=np.ones((1, 2, 2, 1))), (2, 2, 1), 0))
    with pytest.raises(InputError, match="a weight above 0"):
        data.mixed(source([1]), source([1]), 0.0)


def words(texts):
    """A stand-in for an encoder: the length of a text."""
    return {"vector": np.array([[len(text)] for text in texts], np.float32)}


def model(*conditions):
    module = recipe.unet(channels=8, multipliers=(1,))()
    return recipe.gaussian_model(
        module, schedules.vp_cosine(), predict_v, (8, 8, 3), conditions=conditions
    )


def test_pictures_have_the_subject_s_prompt_and_the_prior_its_class_s(tmp_path):
    caption = conditioning.text("prompt", {"vector": jax.ShapeDtypeStruct((1,), np.float32)}, words)
    for i in range(5):
        pixels = np.full((12, 12, 3), 10 * i, np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    np.savez(tmp_path / "prior.npz", samples=np.full((20, 8, 8, 3), 255, np.uint8))
    given = (model(caption), tmp_path / "pictures", "a sks cat")
    both = subject(*given, tmp_path / "prior.npz", "a cat", 1.0).examples
    for i in range(len(both)):
        example = both[i]
        is_prior = example["x"].max() == 255
        assert example["vector"].item() == len("a cat" if is_prior else "a sks cat")
    assert len(subject(*given, None, "", 1.0).examples) == 5
    with pytest.raises(InputError, match="has no `samples`"):
        samples_of(tmp_path / "none.npz")


def test_a_base_that_is_asked_no_prompt_is_refused():
    with pytest.raises(InputError, match="is asked nothing"):
        prompted((), "a cat", 1)
    with pytest.raises(InputError, match="not asked by a prompt alone"):
        prompted((conditioning.label(3),), "a cat", 1)
