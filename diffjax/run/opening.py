"""What the scripts draw from: the model of a workdir or of a published folder, with its weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from diffjax.errors import InputError
from diffjax.experiment import Model
from diffjax.run import flags as f
from diffjax.run import start


def published(
    pretrained: Path | None = None,
    autoencoder: Path | None = None,
    height: int | None = None,
    width: int | None = None,
    lora: list[str] = [],  # noqa: B006
    controlnet: list[str] = [],  # noqa: B006
    ip_adapter: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
):
    """Flags of weights published elsewhere.

    Args:
      pretrained: weights published elsewhere, in place of a workdir: a folder with config.json
        and *.safetensors of diffusers, ADM, EDM or DiT, or a whole system with model_index.json.
      autoencoder: folder of a published autoencoder, which turns latents into images.
      height: of the images of --pretrained in pixels; default what it was trained on.
      width: likewise.
      lora: LoRA file that is merged into the weights, of a workdir too, with its scale after a
        colon, as in style.safetensors:0.7; may be given several times.
      controlnet: folder of a ControlNet for --pretrained, with its scale after a colon, as in
        canny:0.8; it reads --control-image. Several are added, each with its own picture.
      ip_adapter: safetensors file of an IP-Adapter for --pretrained, likewise; its vision encoder
        is the folder image_encoder beside it. It reads --ip-image.
      dtype: of the weights and the computation of --pretrained, a whole system; norms, softmax and
        the autoencoder compute in float32 always.
    """


def begin(argv: list[str]) -> Path | None:
    """Take the workdir off the arguments, and say where compiled functions are kept."""
    workdir = Path(argv.pop(0)) if argv and not argv[0].startswith("-") else None
    start.compiled(f.early_flag(argv, "--compilation-cache", "default"))
    return workdir


def check_opened(model: Model | None, command: str) -> None:
    """Refuse a command that names no model.

    Raises:
      InputError: says how the command names one.
    """
    if model is None:
        raise InputError(
            f"give the workdir of a trained model, as in `{command} runs/digits`, or --pretrained "
            "with a folder of published weights."
        )


def open_asked(workdir: Path | None, argv: Sequence[str]) -> tuple[Model | None, Callable | None]:
    """`open_model` of a workdir, or of what the flags of `published` name, read early."""
    form: dict[str, Any] = {n: f.early_size(argv, f"--{n}") for n in ("height", "width")}
    form["loras"] = [f.file_and_scale(text) for text in f.early_flags(argv, "--lora")]
    form["controlnet"] = [f.file_and_scale(text) for text in f.early_flags(argv, "--controlnet")]
    adapter = f.early_flag(argv, "--ip-adapter")
    form["ip_adapter"] = f.file_and_scale(adapter) if adapter else None
    if f.early_flag(argv, "--dtype") == "bfloat16":
        form["dtype"] = "bfloat16"
    folder, autoencoder = (f.early_flag(argv, n) for n in ("--pretrained", "--autoencoder"))
    return open_model(workdir, folder, autoencoder, form)


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
