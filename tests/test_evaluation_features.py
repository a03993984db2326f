"""Features: golden Inception, real EfficientNet, and no dependence on the batch."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nets import GOLDEN, reference, weight, write_folder
from safetensors.numpy import save_file

from diffjax import pretrained
from diffjax.errors import InputError
from diffjax.evaluation import (
    classifier,
    efficientnet,
    extractors,
    features,
    folding,
    inception,
    resize,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)


def inception_tensors():
    """Weights by their names; this network has its own rule for kernels and statistics."""

    def fill(name, shape):
        w = weight(name, shape)
        if name.endswith("running_var"):
            return 1 + np.abs(w)
        return w * np.float32(np.sqrt(2)) if len(shape) > 1 else w

    shapes = json.loads((GOLDEN / "fid_inception.json").read_text())["parameters"]
    return {name: fill(name, shape) for name, shape in shapes.items()}


@pytest.mark.exhaustive
def test_inception_is_pytorch_fids(tmp_path):
    save_file(inception_tensors(), tmp_path / "w.safetensors")
    with np.load(GOLDEN / "fid_inception_io.npz") as file:
        io = dict(file)
    images = io["in_images_uint8"].transpose(0, 2, 3, 1)
    found = features.inception_features(tmp_path / "w.safetensors", inception.torch_input)
    assert not found.canonical
    assert "w.safetensors" in found.name
    pool = found.function(images)
    np.testing.assert_allclose(pool, io["out_pool3_2048"], atol=1e-5 * io["out_pool3_2048"].max())
    logits = found.logits(images) + inception_tensors()["fc.bias"]
    np.testing.assert_allclose(logits, io["out_logits_1008"], atol=2e-5)
    np.testing.assert_array_equal(found.function(images[1:]), pool[1:])


def test_inputs_are_the_two_resizes():
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 13, 3), dtype=np.uint8)
    size = (inception.SIZE, inception.SIZE)
    got = inception.tf1_input(jnp.asarray(images))
    wanted = (resize.resize(images, size, resize.tf1_bilinear) - 128) / 128
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    got = inception.torch_input(jnp.asarray(images))
    wanted = 2 * resize.resize(images, size, resize.torch_bilinear) / 255 - 1
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_folding_is_the_norm_after_the_convolution():
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((5, 3, 1, 1)), rng.standard_normal((4, 3))
    norm = {k: rng.random(5) + 0.5 for k in ("weight", "bias", "running_mean", "running_var")}
    kernel, bias = folding.fold(w, norm)
    y = x @ w[:, :, 0, 0].T
    wanted = (y - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3)
    wanted = wanted * norm["weight"] + norm["bias"]
    np.testing.assert_allclose(x @ kernel[:, :, 0, 0].T + bias, wanted, rtol=1e-5)


def test_weights_that_are_absent_or_others(tmp_path):
    with pytest.raises(InputError, match=r"nothing.pth does not exist; FID's weights are pt_incep"):
        features.inception_features(tmp_path / "nothing.pth")
    tensors = {"Mixed_5b.branch1x1.conv.weight": np.zeros((64, 192, 1, 1), np.float32)}
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="the weights lack 189 of 190 tensors"):
        features.inception_features(tmp_path / "w.safetensors")


@pytest.mark.skipif(
    importlib.util.find_spec(efficientnet.PACKAGE) is None,
    reason="the weights of EfficientNet-lite0 are an optional package that is not installed",
)
@pytest.mark.exhaustive
def test_efficientnet_knows_a_temple_and_a_daisy():
    from sklearn.datasets import load_sample_images

    found = features.efficientnet_features()
    images = [image[:420, :420] for image in load_sample_images().images]
    logits = found.logits(np.stack(images))
    temple, flower = np.argsort(-logits, axis=1)[:, :5]
    assert {442, 663, 698} & set(temple.tolist())  # bell cote, monastery, palace
    assert 985 in flower  # daisy
    one = found.function(np.stack(images[:1]))
    np.testing.assert_array_equal(one, found.function(np.stack(images))[:1])
    assert one.shape == (1, 1280)


def trained():
    """A classifier that has seen nothing."""
    module = classifier.Classifier(3)
    x = classifier.prepare(jnp.asarray(IMAGES[:1]))
    return module.init(jax.random.key(0), x)["params"]


@pytest.mark.parametrize(
    "name", ["pixels", "pca", pytest.param("classifier", marks=pytest.mark.exhaustive)]
)
def test_features_do_not_depend_on_the_batch(name):
    make = {
        "pixels": features.pixels,
        "pca": lambda: features.principal_components(IMAGES, 20),
        "classifier": lambda: classifier.classifier_features(trained()),
    }[name]
    function = make().function
    whole = function(IMAGES)
    assert whole.shape == (64, {"pixels": 64, "pca": 20, "classifier": 64}[name])
    for batch in (1, 7):
        parts = [function(IMAGES[i : i + batch]) for i in range(0, 64, batch)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_network_meets_batches_of_one_size():
    weights = np.random.default_rng(1).standard_normal((64, 5)).astype(np.float32)
    seen = []

    def apply(params, images):
        seen.append(images.shape)
        return images.reshape(len(images), -1).astype(jnp.float32) @ params

    function = features.in_batches(apply, weights, batch=16)
    whole = function(IMAGES)
    for batch in (1, 7):
        parts = [function(IMAGES[i : i + batch]) for i in range(0, 64, batch)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert seen == [(16, 8, 8, 1)]


def test_principal_components_keep_distances_when_all_are_kept():
    function = features.principal_components(IMAGES, 64).function
    flat = features.pixels().function(IMAGES)
    a, b = function(IMAGES[:2])
    np.testing.assert_allclose(np.linalg.norm(a - b), np.linalg.norm(flat[0] - flat[1]))


def test_fingerprints_tell_parameters_apart(tmp_path):
    params = trained()
    classifier.save_classifier(tmp_path / "c.npz", params)
    again = classifier.classifier_features(classifier.load_classifier(tmp_path / "c.npz"))
    assert again.fingerprint == classifier.classifier_features(params).fingerprint
    params["logits"]["bias"] = params["logits"]["bias"] + 1
    assert again.fingerprint != classifier.classifier_features(params).fingerprint
    (tmp_path / "c.npz").write_bytes(b"")
    with pytest.raises(InputError, match="delete it to train anew"):
        classifier.load_classifier(tmp_path / "c.npz")


@pytest.mark.exhaustive
def test_classifier_learns_digits_in_seconds():
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = np.uint8(data.images[..., None] * 15.9), data.target
    params = classifier.train_classifier(images[:1400], labels[:1400], 10, steps=60)
    logits = classifier.classifier_features(params).logits(images[1400:])
    assert np.mean(logits.argmax(axis=1) == labels[1400:]) > 0.8


@pytest.mark.exhaustive
def test_clip_is_transformers_vision_tower(tmp_path):
    config, tensors, io = reference("clip_vision_projection")
    config["architectures"] = ["CLIPVisionModelWithProjection"]
    clip = extractors.clip_features(write_folder(tmp_path / "clip", config, tensors))
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    found = clip.function(images)
    model = pretrained.load(tmp_path / "clip")
    mean, std = (
        np.array([0.48145466, 0.4578275, 0.40821073]),
        np.array([0.26862954, 0.26130258, 0.27577711]),
    )
    pixels = jnp.asarray((images / 255 - mean) / std, jnp.float32)
    with jax.default_matmul_precision("highest"):
        wanted = np.asarray(model.encode(model.params, pixels).image_embeds)
        golden = model.encode(model.params, jnp.moveaxis(io["in_pixel_values"], 1, -1))
    np.testing.assert_allclose(golden.image_embeds, io["out_image_embeds"], atol=2e-5)
    np.testing.assert_allclose(
        found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5
    )
    for batch in (1, 7):
        parts = [clip.function(images[i : i + batch]) for i in range(0, 64, batch)]
        np.testing.assert_array_equal(np.concatenate(parts), found)
    config["architectures"] = ["CLIPVisionModel"]
    rest = {k: v for k, v in tensors.items() if "projection" not in k}
    with pytest.raises(InputError, match="holds no CLIP vision tower with a projection"):
        extractors.clip_features(write_folder(tmp_path / "plain", config, rest))
