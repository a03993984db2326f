"""Whether a source has what an experiment trains on, before anything is compiled."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from diffjax.data.augment import Augmentation, Example
from diffjax.data.source import Source
from diffjax.errors import InputError, sentence
from diffjax.types import PyTree


def check(
    source: Source,
    shape: PyTree,
    num_classes: int | None = None,
    augment: Sequence[Augmentation] = (),
) -> None:
    """Refuse a source whose examples do not fit an experiment.

    The first example is read and augmented. Of sources that hold their labels in memory, as
    `folder` and `array` do, every label is looked at.

    Args:
      source: the data.
      shape: of one "x" after augmentation: a tuple, or where x is a tree of arrays the same
        tree of tuples or of objects with a `shape`, such as `jax.ShapeDtypeStruct`.
      num_classes: the labels are 0 to num_classes - 1; None where none are needed.
      augment: of the experiment.

    Raises:
      InputError: no "x", or one of another shape or not of numbers; no "label", or one that is
        not such an integer; more classes than the experiment has.
    """
    example = _first(source, augment)
    _check_x(example, _shapes(shape))
    if num_classes:
        _check_label(source, example, num_classes)


def check_labels(labels: Any, num_classes: int) -> None:
    """Refuse labels that are not integers in 0, ..., num_classes - 1.

    Args:
      labels: array-like (...).
      num_classes: their number.

    Raises:
      InputError: with the first label that is not.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise InputError(f"expected labels that are integers; the data has {labels.dtype}.")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise InputError(
            f"expected labels from 0 to {num_classes - 1}, for there are {num_classes} classes; "
            f"the data has the label {wrong.flat[0]}; number its classes from 0."
        )


def _first(source: Source, augment: Sequence[Augmentation]) -> Example:
    """The first example as training gets it."""
    example, rng = source.examples[0], np.random.default_rng(0)
    try:
        for function in augment:
            example = function(example, rng)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"an augmentation failed on the first example ({sentence(error)}); expected a function "
            "(example, rng) -> example."
        ) from error
    if not isinstance(example, dict) or "x" not in example:
        got = sorted(example) if isinstance(example, dict) else type(example).__name__
        raise InputError(f'expected examples that are dicts with "x"; the data has {got}.')
    return example


def _shapes(tree: PyTree) -> PyTree:
    """The shape of every leaf; a tuple of integers is one already."""
    if isinstance(tree, tuple | list) and all(isinstance(n, int | np.integer) for n in tree):
        return tuple(tree)
    if isinstance(tree, dict):
        return {name: _shapes(leaf) for name, leaf in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_shapes(leaf) for leaf in tree)
    return tuple(np.shape(tree) if not hasattr(tree, "shape") else tree.shape)


def _check_x(example: Example, wanted: PyTree) -> None:
    """Refuse an x that is not of numbers or not of the shape."""
    x = jax.tree.map(np.asarray, example["x"])
    if any(leaf.dtype.kind not in "biufc" for leaf in jax.tree.leaves(x)):
        raise InputError('expected "x" of numbers; the data has strings or objects there.')
    if _shapes(x) != wanted:
        raise InputError(
            f"the experiment is for examples of shape {wanted}; the data has {_shapes(x)}; read "
            "it in that size, or change the configuration."
        )


def _check_label(source: Source, example: Example, num_classes: int) -> None:
    """Refuse labels that are missing or that the experiment has no class for."""
    if "label" not in example:
        raise InputError(
            f"the experiment has {num_classes} classes and the data no labels; give each class a "
            "folder, or an array `label` in the .npz file, or train without classes."
        )
    if np.shape(example["label"]):
        raise InputError(
            f"expected one label for each example; got shape {np.shape(example['label'])}."
        )
    if source.num_classes > num_classes:
        raise InputError(
            f"the experiment has {num_classes} classes and the data {source.num_classes}; set the "
            "experiment's number of classes to that, or leave the others out of the data."
        )
    known = getattr(source.examples, "arrays", {})
    check_labels(known.get("label", example["label"]), num_classes)
