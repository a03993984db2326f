"""From the flags of an edit to what its draw is given: conditions, arrays, operator, grid."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffjax.codec import Codec
from diffjax.editing import measures, pictures, strength_steps
from diffjax.editing.edit import BEFORE, Edit, describing, editable, given
from diffjax.editing.operators import LinearOperator, Operator
from diffjax.errors import InputError
from diffjax.experiment import Model
from diffjax.media.before_after import before_after
from diffjax.run.flags import constructors, flags_of, is_given, keywords_of
from diffjax.types import Array, Grid

NEEDED = {
    "init_image": "--init-image",
    "to_image": "--to-image",
    "mask": "--mask",
    "measurement": "--operator with --measurement or --init-image",
    "before": "what the picture is, such as --from-label",
}
"""How a user gives what an `Edit` needs."""


class Given(NamedTuple):
    """What the files and flags of an edit hold.

    Attributes:
      arrays: by names of `editing.edit.GIVEN`, each (N, ...) of its own N.
      before: whether a flag says what the given picture is.
    """

    arrays: Mapping[str, np.ndarray]
    before: bool = False


def operator_makers() -> dict[str, Callable]:
    """The operators that --operator can name."""
    kinds = (LinearOperator, Operator)
    found = [constructors(measures, kind, ("shape",)) for kind in kinds]
    return dict(sorted((found[0] | found[1]).items()))


def default_method(argv: Sequence[str], conditions: Sequence, operator: Callable | None) -> str:
    """The name of the method that the given flags ask for, where --method does not."""
    names = [n for c in conditions if c.null is not None for n in keywords_of(c.flags)]
    if operator is not None:
        linear = inspect.signature(operator).return_annotation is LinearOperator
        return "ddnm" if linear else "dps"
    if is_given(argv, "mask"):
        return "repaint"
    if is_given(argv, "to_image"):
        return "interpolation"
    return "ddpm_inversion" if is_given(argv, *(BEFORE + n for n in names)) else "sdedit"


def before_flags(conditions: Sequence) -> Callable:
    """Flags that say what the given picture is: those of conditions with a null, prefixed."""
    parameters, lines = [], []
    for condition in conditions:
        if condition.null is None:
            continue
        for name, p in inspect.signature(flags_of(condition.flags)).parameters.items():
            parameters.append(p.replace(name=BEFORE + name, default=None))
            lines.append(f"  {BEFORE}{name}: what the given picture is, in terms of --{name}.")

    def flags(**values):
        return values

    flags.__signature__ = inspect.Signature(
        [p.replace(annotation=p.annotation | None) for p in parameters]
    )
    flags.__doc__ = "Flags.\n\nArgs:\n" + "\n".join(lines)
    return flags


def raw_conditions(conditions: Sequence, num: int, values: Mapping[str, Any], argv: Sequence[str]):
    """The raw conditions of `num` samples, each that no flag gives at its null.

    Returns:
      The arrays by name, and whether one was given.
    """
    raw, said = {}, False
    for condition in conditions:
        names = keywords_of(condition.flags)
        asked = is_given(argv, *names)
        said |= asked
        if condition.null is None or asked:
            raw |= condition.flags(num, **{k: v for k, v in values.items() if k in names})
        else:
            raw |= _nulls(condition, num)
    return raw, said


def raw_before(conditions: Sequence, num: int, values: Mapping[str, Any]):
    """Likewise of what the given picture is, under names that begin with `BEFORE`."""
    raw, said = {}, False
    for condition in conditions:
        if condition.null is None:
            continue
        names = [n for n in keywords_of(condition.flags) if values.get(BEFORE + n) is not None]
        own = {n: values[BEFORE + n] for n in names}
        found = condition.flags(num, **own) if names else _nulls(condition, num)
        raw |= {BEFORE + name: array for name, array in found.items()}
        said |= bool(names)
    return raw, said


def _nulls(condition, num: int) -> dict[str, np.ndarray]:
    return {
        name: np.broadcast_to(np.asarray(condition.null[name], like.dtype), (num, *like.shape))
        for name, like in condition.example.items()
    }


def picture_shape(model: Model) -> tuple[int, ...]:
    """The shape of one decoded picture.

    Raises:
      InputError: the model draws no pictures.
    """
    if model.codec.sheet is None:
        raise InputError("this model draws no pictures; give --autoencoder where it has one.")
    if model.codec.decode is Codec().decode:
        return model.example.shape
    frozen = {name: load() for name, load in model.frozen.items()}
    x = jax.ShapeDtypeStruct((1, *model.example.shape), model.example.dtype)
    return jax.eval_shape(model.codec.decode, frozen, x).shape[1:]


def read_given(
    asked: Mapping[str, Any],
    edit: Edit,
    operator: Callable | None,
    shape: tuple[int, ...],
    before: bool,
    noise_std: float = 0.0,
) -> tuple[Given, Operator | None]:
    """Everything that the files hold, read and checked against the model and each other.

    Args:
      asked: values of the flags.
      edit: that needs some of them.
      operator: (shape) -> `Operator`, or None.
      shape: of one picture.
      before: whether a flag says what the given picture is.
      noise_std: of the noise where --init-image is measured here.

    Returns:
      What is given, and the operator.

    Raises:
      InputError: something is missing, of another size or mode, or does not agree.
    """
    found = {}
    for name in ("init_image", "to_image"):
        if asked[name] is not None:
            flag = f"--{name.replace('_', '-')}"
            found[name] = pictures.read_pictures(Path(asked[name]), shape, asked["fit"], flag)
    if asked["mask"] is not None:
        found["mask"] = pictures.read_mask(Path(asked["mask"]), shape)
    made = operator(shape) if operator else None
    if made is None and "measurement" in edit.needs and "mask" in found:
        made = measures.inpainting(shape, found["mask"][0])
    if made is not None:
        _refuse_nonlinear(edit, made)
        if asked["measurement"] is not None:
            of_one = jax.eval_shape(_apply(made), jnp.zeros((1, *shape))).shape[1:]
            path = Path(asked["measurement"])
            found["measurement"] = pictures.read_measurement(path, of_one, asked["fit"])
        elif "init_image" in found:
            found["measurement"] = _measured(made, found["init_image"], noise_std, asked["seed"])
    _refuse_missing(edit, found, before)
    return Given(found, before), made


def _apply(operator: Operator) -> Callable:
    return operator.apply if isinstance(operator, LinearOperator) else operator


def _measured(operator: Operator, images: np.ndarray, std: float, seed: int) -> np.ndarray:
    y = np.asarray(_apply(operator)(jnp.asarray(images)))
    return (y + std * np.random.default_rng(seed).standard_normal(y.shape)).astype(np.float32)


def _refuse_nonlinear(edit: Edit, operator: Operator) -> None:
    if edit.linear and not isinstance(operator, LinearOperator):
        raise InputError("this method needs a linear --operator; use --method dps or daps.")


def _refuse_missing(edit: Edit, found: Mapping[str, Any], before: bool) -> None:
    missing = [n for n in edit.needs if not (before if n == "before" else n in found)]
    if missing:
        raise InputError(f"this method needs {' and '.join(NEEDED[name] for name in missing)}.")


def grid_of(ts: Grid, strength: float | None, edit: Edit) -> Array:
    """The part of a grid that an edit runs.

    Raises:
      InputError: the strength is outside (0, 1], leaves no step, or is no matter of this edit.
    """
    if edit.strength is None and strength is not None:
        raise InputError("this method begins with noise alone; leave out --strength.")
    n, share = len(ts) - 1, strength if strength is not None else edit.strength or 1.0
    skipped = strength_steps(n, share)
    if skipped == n:
        raise InputError(f"--strength {share} leaves none of {n} steps; use more of either.")
    return ts[skipped:]


def of_diffused(operator: Operator | None, model: Model, shape: tuple[int, ...]) -> Operator | None:
    """The operator, of a model that diffuses pictures as they are.

    Raises:
      InputError: the model diffuses latents, of which no picture is measured.
    """
    if operator is not None and model.example.shape != shape:
        raise InputError(
            "an operator measures pictures, and this model diffuses latents of them; use --mask "
            "with --method replacement or repaint, or a model of pixels."
        )
    return operator


def results_of(what: Given) -> int:
    """Results where --num does not say: one for each picture, 8 from one picture to another."""
    pictures = max((len(a) for n, a in what.arrays.items() if n != "mask"), default=1)
    return max(pictures, 8) if "to_image" in what.arrays else pictures


def guidance_scale_of(model: Model, asked: float | None, said: bool) -> float:
    """The guidance scale: the model's where a condition is given, and else none.

    Raises:
      InputError: guidance is asked for and nothing is given to guide towards, or there is none.
    """
    if asked is None:
        return model.sampling.guidance_scale if said and model.guide else 1.0
    if asked != 1 and (model.guide is None or not said):
        raise InputError(
            "guidance needs a model with a null and a condition that is given, such as --label; "
            "leave --guidance-scale at 1."
        )
    return asked


def given_model(model: Model, what: Given, num: int) -> tuple[Model, dict[str, np.ndarray]]:
    """The model that is given pictures, its PNG of before and after, and the arrays of the draw.

    Args:
      model: any.
      what: from `read_given`.
      num: number of results.

    Returns:
      The model and the raw arrays (num, ...) of what is given.
    """
    many = {n: a[np.arange(num) % len(a)] for n, a in what.arrays.items()}
    if "to_image" in many:
        many["weight"] = np.linspace(0, 1, num, dtype=np.float32) if num > 1 else np.full(1, 0.5)
    conditions = [
        given(name, array.shape[1:], _encoding(model, name)) for name, array in many.items()
    ]
    if what.before:
        conditions += [describing(c) for c in model.conditions if c.null is not None]
    sources = max((len(a) for a in what.arrays.values()), default=1)
    writers = {".png": before_after(_tiles(many), sources)}
    if ".npz" in model.codec.writers:
        writers[".npz"] = model.codec.writers[".npz"]
    edited = editable(model, tuple(conditions))
    return edited._replace(codec=model.codec._replace(writers=writers)), many


def _encoding(model: Model, name: str) -> Callable | None:
    """Pictures as they are diffused; a mask where every pixel of a latent is known."""
    if name in ("init_image", "to_image"):
        return model.codec.encode
    if name != "mask":
        return None

    def fewest(frozen, mask):
        b, h, w, c = mask.shape
        height, width = model.example.shape[:2]
        return mask.reshape(b, height, h // height, width, w // width, c).min((2, 4))

    return fewest


def _tiles(many: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pictures of what is given, of one size and mode, in the order in which they are shown."""
    found = {n: many[n] for n in ("init_image", "to_image") if n in many}
    if "mask" in many and "init_image" in many:
        found["mask"] = np.where(many["mask"] > 0, many["init_image"], 1)
    shape = next(iter(found.values())).shape if found else None
    measured = many.get("measurement")
    if measured is None or "mask" in found:
        return found
    if measured.ndim == 4 and shape is None:
        found["measurement"] = measured
    elif measured.ndim == 4 and not any(a % b for a, b in zip(shape, measured.shape, strict=True)):
        factors = [a // b for a, b in zip(shape, measured.shape, strict=True)]
        for axis, factor in enumerate(factors):
            measured = np.repeat(measured, factor, axis)
        found["measurement"] = measured
    return found
