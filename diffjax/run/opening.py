"""What the scripts draw from: the model of a workdir or of a published folder, with its weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffjax.errors import InputError
from diffjax.experiment import Model


def open_model(
    workdir: Path | None,
    published_at: str | None,
    autoencoder_at: str | None,
    form: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Model | None, Callable | None]:
    """The model to draw from, and (mesh, step, ema, say) -> its weights and what to call them.

    Args:
      workdir: of train.py, or None.
      published_at: folder of published weights, or None.
      autoencoder_at: folder of a published autoencoder that turns latents into pictures, or None.
      form: size and adapters of a published system, as of `pretrained.open_published`, and
        `loras`, LoRA files and their scales, of either.

    Returns:
      Both; None and None where neither is given.

    Raises:
      InputError: both are given, or one is not what it should be.
    """
    if workdir and published_at:
        raise InputError(f"give a workdir or --pretrained; got {workdir} and {published_at}.")
    form = dict(form)
    loras = form.pop("loras", ())
    if workdir and any(form.values()):
        given = [name.replace("_", "-") for name in form if form[name]]
        flags = ", ".join(f"--{name}" for name in given)
        raise InputError(f"{flags}: only with --pretrained; leave them out.")
    if workdir:
        model, weights = of_workdir(workdir, loras)
    elif published_at:
        model, weights = of_published(published_at, {**form, "loras": loras})
    else:
        return None, None
    if autoencoder_at:
        from diffjax.pretrained.model import with_decoder

        model = with_decoder(model, autoencoder_at)
    return model, weights


def of_workdir(
    workdir: Path, loras: Sequence[tuple[str | Path, float]] = ()
) -> tuple[Model, Callable]:
    """What `open_model` gives, of a workdir of train.py."""
    from diffjax.run.loras import check_bases, with_files
    from diffjax.run.snapshots import restore_length
    from diffjax.run.weights import as_trained, restore_average
    from diffjax.run.workdir import load_experiment

    experiment = load_experiment(workdir)
    model = experiment.model._replace(frozen=as_trained(workdir, experiment.model.frozen))

    def weights(mesh, step, ema, say):
        if ema is not None:
            found, newest = restore_length(workdir, experiment, mesh, ema, step), ""
        else:
            found = restore_average(workdir, experiment, mesh, step)
            newest = f"; using {found.step}"
        for sentence in found.damaged:
            say(f"warning: {sentence}{newest}")
        check_bases(workdir, found.params, loras)
        what = f"checkpoint {found.step}" if newest else f"EMA length {ema:g} at step {found.step}"
        return found.params, what

    return with_files(model, loras), weights


def of_published(folder: str, form: Mapping[str, Any]) -> tuple[Model, Callable]:
    """What `open_model` gives, of weights published elsewhere."""
    from diffjax.pretrained.model import open_published
    from diffjax.run.weights import placed

    model, leaves = open_published(folder, **form)

    def weights(mesh, step, ema, say):
        if ema is not None:
            raise InputError("--ema is of a workdir; published weights are one average.")
        return placed(leaves, mesh), f"weights of {folder}"

    return model, weights
