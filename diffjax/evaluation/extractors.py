"""Extractors of features by the names that --features knows."""

from pathlib import Path

import jax.numpy as jnp

from diffjax.errors import InputError
from diffjax.evaluation import classifier, features, sides
from diffjax.pretrained import load
from diffjax.pretrained.architecture import Encoder
from diffjax.pretrained.image_prompt import MEAN, STD

CLIP = "clip:"


def choose_features(name: str | None, reference: sides.Side, cache: Path) -> features.Features:
    """The extractor that --features names.

    Args:
      name: of the flag; None is classifier where the reference has labels, else pca.
      reference: what a classifier is trained on and principal components are of.
      cache: folder where the classifier is kept.

    Returns:
      The extractor.

    Raises:
      InputError: there is none of that name, or it needs what is missing.
    """
    labelled = reference.labels is not None
    name = name or ("classifier" if labelled else "pca")
    if name.startswith(CLIP):
        return clip_features(name.removeprefix(CLIP))
    if features.is_weights(name):
        return features.inception_features(name)
    if name == "efficientnet":
        return features.efficientnet_features()
    if name not in ("pixels", "pca", "classifier"):
        raise InputError(
            "--features must be pixels, pca, classifier, efficientnet, clip:FOLDER or a file of "
            f"FID's weights; got {name!r}."
        )
    if reference.moments is not None:
        raise InputError("statistics alone can be met with FID's weights: --features FILE.")
    if name == "pixels":
        return features.pixels()
    if name == "pca":
        return features.principal_components(reference.images)
    return own_classifier(reference, cache)


def own_classifier(reference: sides.Side, cache: Path) -> features.Features:
    """Features of a classifier of the reference's labels, trained once and kept.

    Raises:
      InputError: the reference has no labels.
    """
    if reference.labels is None:
        raise InputError(f"--features classifier needs labels, which {reference.name} lacks.")
    file = cache / f"classifier-2-{reference.fingerprint}.npz"
    if not file.is_file():
        print("training a classifier of the reference, once")
        count = int(reference.labels.max()) + 1
        trained = classifier.train_classifier(reference.images, reference.labels, count)
        classifier.save_classifier(file, trained)
    label = f"classifier trained on {reference.name}"
    return classifier.classifier_features(classifier.load_classifier(file), label)


def clip_features(folder: str | Path) -> features.Features:
    """The projected vector of CLIP's vision tower, of length 1, as CMMD takes it.

    Images are resized to the tower's size by Pillow's bicubic filter in float, without a crop
    (Jayasumana et al. 2024), and normalised by CLIP's mean and standard deviation.

    Args:
      folder: of transformers, with config.json and *.safetensors of a CLIPVisionModelWithProjection
        or a CLIPModel.

    Returns:
      One feature per dimension of the projection.

    Raises:
      InputError: no such folder, or of another network.
    """
    expected = (
        "expected a folder with the files of a CLIPModel or a CLIPVisionModelWithProjection, "
        "such as those of openai/clip-vit-base-patch32."
    )
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is no folder; {expected}")
    found = load(folder)
    module = getattr(found, "module", None)
    tower = getattr(module, "vision", None)
    whole = tower is not None  # a CLIPModel holds both towers
    module = tower() if whole else module
    if not isinstance(found, Encoder) or not getattr(module, "projection", None):
        raise InputError(f"{folder} holds no CLIP vision tower with a projection; {expected}")
    params = found.params["vision_model"] if whole else found.params

    def apply(params, images):
        x = (features.resized(images, module.image) / 255 - MEAN) / STD
        vector = module.apply({"params": params}, x).image_embeds
        return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)

    mark = features.fingerprint("clip-1", features.of_params(params))
    return features.Features(f"CLIP of {folder}", features.in_batches(apply, params), mark)
