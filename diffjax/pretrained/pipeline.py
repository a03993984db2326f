"""A folder with model_index.json: its parts by name and class, opened and not read."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from diffjax.errors import InputError, sentence
from diffjax.pretrained import whole_files
from diffjax.pretrained.architecture import Loaded
from diffjax.pretrained.load import as_they_are, leaves_of, open_network, read_config
from diffjax.pretrained.lora import parts_of as lora_parts
from diffjax.pretrained.lora import with_lora
from diffjax.pretrained.scheduler import KEY as SCHEDULER
from diffjax.pretrained.scheduler import read_scheduler
from diffjax.pretrained.tokenizer import Tokenizer, load_tokenizer
from diffjax.types import Params

INDEX = "model_index.json"
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts that take no part in a draw from text: what they would do is not done."""


class Pipeline(NamedTuple):
    """A pipeline of diffusers.

    Attributes:
      folder: with model_index.json.
      kind: its class, such as StableDiffusionPipeline.
      classes: part -> class, of the parts that are there.
      settings: the other entries of model_index.json.
      loras: LoRA files and their scales, merged one after the other.
      file: the one file that holds the weights of all parts; None where each has its own.
      whole: what that file is.
    """

    folder: Path
    kind: str
    classes: Mapping[str, str]
    settings: Mapping[str, Any]
    loras: tuple[tuple[Path, float], ...] = ()
    file: Path | None = None
    whole: whole_files.WholeFile | None = None


def is_pipeline(path: Path) -> bool:
    """Whether a path is a folder with model_index.json and is no network itself."""
    return (path / INDEX).is_file() and not (path / "config.json").is_file()


def read_pipeline(folder: str | Path) -> Pipeline:
    """The parts that a folder's model_index.json names.

    Args:
      folder: of the pipeline.

    Raises:
      InputError: the file is not JSON of one object, or does not say its class.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / INDEX} is not JSON: {sentence(error)}") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise InputError(f"{folder / INDEX}: expected an object with _class_name.")
    entries = {name: value for name, value in index.items() if not name.startswith("_")}
    parts = {name: value for name, value in entries.items() if isinstance(value, list)}
    classes = {name: str(value[-1]) for name, value in parts.items() if value and value[-1]}
    settings = {name: value for name, value in entries.items() if name not in parts}
    return Pipeline(folder, index["_class_name"], classes, settings)


def one_file(path: Path) -> Pipeline:
    """The pipeline of one file of a whole system, in the latent diffusion code's names.

    A configuration beside it (unet/config.json, scheduler/scheduler_config.json) is taken before
    the published one; tokenizers must be beside it.

    Args:
      path: of the file.

    Raises:
      InputError: the file has a tensor of no part.
    """
    folder, whole = path.resolve().parent, whole_files.whole_file(path)
    classes = {name: part.kind for name, part in whole.parts.items()}
    kinds = {"tokenizer_3": "T5Tokenizer"}
    classes |= {name: kinds.get(name, "CLIPTokenizer") for name in whole.tokenizers}
    classes |= whole.beside
    return Pipeline(folder, whole.kind, classes, {}, file=path, whole=whole)


def config_in_one_file(pipeline: Pipeline, name: str) -> dict[str, Any] | None:
    """The configuration of a part of one file; None where it stands beside the file.

    Raises:
      InputError: the file does not say what its network predicts.
    """
    if (pipeline.folder / name / "config.json").is_file():
        return None
    whole = pipeline.whole
    found = read_scheduler(pipeline.folder / name) or whole.scheduler
    if found is None:
        raise InputError(
            f"one file of a {whole.name} does not say whether it predicts eps or v; put its "
            "scheduler/scheduler_config.json beside it."
        )
    return {**whole.parts[name].config, SCHEDULER: found}


def check_parts(pipeline: Pipeline, expected: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a pipeline that lacks a part, has one too many, or one of another class.

    Args:
      pipeline: from `read_pipeline`.
      expected: part -> the classes that it may be of.

    Raises:
      InputError: names the part, and its class where that is what is wrong.
    """
    for name, kinds in expected.items():
        found = pipeline.classes.get(name)
        within_file = pipeline.whole is not None and name in pipeline.whole.parts
        if found is None or not (within_file or (pipeline.folder / name).is_dir()):
            raise InputError(
                f"{pipeline.folder} is a {pipeline.kind} without its {name} (a folder with a "
                f"{' or '.join(kinds)}); add that folder."
            )
        if found not in kinds:
            raise InputError(
                f"{pipeline.folder}: the {name} of a {pipeline.kind} is a {found}, which is not "
                f"supported; expected {' or '.join(kinds)}."
            )
    for name in sorted(pipeline.classes.keys() - expected.keys() - {*LEFT_OUT}):
        raise InputError(
            f"{pipeline.folder}: a {pipeline.kind} with a part {name!r} "
            f"({pipeline.classes[name]}) is not supported; expected {', '.join(expected)}."
        )


class Part(NamedTuple):
    """A network of a pipeline.

    Attributes:
      network: as `load` gives it, without its parameters.
      leaves: () -> its parameters as a tree of `naming.Leaf`s.
      like: their shapes.
      config: of its folder.
    """

    network: Loaded
    leaves: Any
    like: Params
    config: dict[str, Any]


def open_part(pipeline: Pipeline, name: str, scheduler: str | None = None) -> Part:
    """A network of the pipeline, by its configuration.

    Args:
      pipeline: from `read_pipeline` or `one_file`.
      name: of the part.
      scheduler: folder of the part's own scheduler; None is the pipeline's.

    Raises:
      InputError: its configuration is not one that is known.
    """
    if pipeline.whole is None or name not in pipeline.whole.parts:
        given = [None, scheduled(pipeline, name, scheduler)] if scheduler else []
        opened = within(pipeline, name, open_network, pipeline.folder / name, *given)
        find = as_they_are
    else:
        given = [pipeline.file], config_in_one_file(pipeline, name)
        opened = within(pipeline, name, open_network, pipeline.folder / name, *given)
        theirs = [*opened.architecture.names, *opened.architecture.ignored]
        part = pipeline.whole.parts[name]
        find = partial(whole_files.part_of, part=part, names=theirs, config=opened.config)
    network = opened.architecture.finish({}, opened.config)
    change = partial(merged, pipeline, name)
    leaves = partial(within, pipeline, name, leaves_of, opened, change, find)
    return Part(network, leaves, opened.like, opened.config)


def scheduled(pipeline: Pipeline, name: str, scheduler: str) -> dict[str, Any]:
    """The configuration of a part with that of its own scheduler.

    Raises:
      InputError: one of them is missing.
    """
    found = read_scheduler(pipeline.folder / scheduler)
    if found is None:
        raise InputError(f"{pipeline.folder / scheduler} has no scheduler_config.json.")
    return {**within(pipeline, name, read_config, pipeline.folder / name), SCHEDULER: found}


def merged(pipeline: Pipeline, name: str, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors of a part with the pipeline's LoRA files merged into them."""
    part = "unet" if name == "transformer" else name
    for path, scale in pipeline.loras:
        if part in lora_parts(path):
            tensors = with_lora(tensors, path, scale, part)
    return tensors


def check_loras(pipeline: Pipeline) -> None:
    """Refuse a LoRA file that changes a part which the pipeline does not have.

    Raises:
      InputError: names the file and the part.
    """
    has = {"unet" if name == "transformer" else name for name in pipeline.classes}
    for path, _ in pipeline.loras:
        changed = lora_parts(path)
        if not changed or changed - has:
            what = ", ".join(sorted(changed - has)) or "nothing that is known"
            raise InputError(f"{path} changes {what}, which {pipeline.folder} does not have.")


def open_tokenizer(pipeline: Pipeline, name: str) -> Tokenizer:
    """A tokenizer of the pipeline.

    Raises:
      InputError: its files are missing or damaged, or the extra `text` is not installed.
    """
    return load_tokenizer(pipeline.folder / name)


def within(pipeline: Pipeline, name: str, function: Any, *given: Any) -> Any:
    """function(*given), whose refusals name the part."""
    try:
        return function(*given)
    except InputError as error:
        raise InputError(f"the {name} of {pipeline.folder}: {error}") from error
