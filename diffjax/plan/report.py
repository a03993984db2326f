"""The plan as text: a table of slices, what passes between chips, and what would make it fit."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from diffjax.errors import InputError
from diffjax.experiment import Experiment
from diffjax.plan.chips import Chip, chip_of
from diffjax.plan.step import Cost, cost, devices_of

GIB, GB, TERA = 2**30, 1e9, 1e12
HEAD = (
    "slice", "mesh", "memory / HBM (GiB)", "fits", "TFLOP", "HBM (GB)", "sent (GB)",
    "compute (ms)", "HBM (ms)", "ICI (ms)", "bound on MFU",
)  # fmt: skip


def report(
    build: Callable[..., Experiment],
    options: dict[str, Any],
    slices: str,
    mesh: str = "",
    name: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> str:
    """Compile the step for every slice and mesh asked for, and say what each needs.

    Args:
      build: config options that are to differ -> experiment.
      options: of the configuration, with their values.
      slices: such as v5e:16x16,v5p:4x4x8.
      mesh: sizes of the axes; several meshes are separated by ";".
      name: of the configuration.
      tell: called with a line before each compilation, which takes seconds to minutes.

    Returns:
      Markdown.

    Raises:
      InputError: no TPU compiler, no such slice, or a batch that does not divide over it.
    """
    jax.config.update("jax_platforms", "cpu")  # the host; a TPU that is not there is not asked for
    experiment = build()
    parts = [_introduction(name, experiment)]
    rows, notes = [], []
    for topology in slices.split(","):
        devices, chip = devices_of(topology), chip_of(topology)
        for axes in mesh.split(";"):
            tell(f"compiling for {topology} {axes}")
            found = cost(experiment, devices, axes)
            rows.append(row(topology, chip, found))
            notes.append(_exchanges(topology, found))
            if not found.fits:
                notes.append(_remedies(build, options, devices, found, tell))
    parts += [table(HEAD, rows), *filter(None, notes)]
    return "\n\n".join(parts)


def _introduction(name: str, experiment: Experiment) -> str:
    params = jax.eval_shape(experiment.model.init, jax.random.key(0))
    shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(experiment.model.example))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return (
        f"# The training step of {name} on TPU slices\n\n"
        f"{count:,} parameters, batch {experiment.batch_size} in {experiment.accumulate} "
        f"piece(s), x {shapes}. Compiled by the TPU compiler of this machine's libtpu; "
        "nothing was run. All figures are per chip and step: FLOPs of matrix products and "
        "convolutions, bytes read and written in HBM, bytes sent to other chips (ring "
        "algorithms). Each time is the work over the chip's published peak, bandwidth or total "
        "link bandwidth. Bytes of HBM are those of the operands and results of the compiled "
        "program's instructions, an estimate. The bound on MFU takes the longest of the three as "
        "the step, all overlapped; real runs stay below it."
    )


def times(chip: Chip, found: Cost) -> tuple[float, float, float]:
    """Seconds of compute, HBM and ICI at the chip's published rates."""
    sent = sum(c.sent for c in found.collectives)
    return (
        found.flops / chip.peak,
        (found.hbm or 0) / chip.hbm_bandwidth,
        sent / chip.ici_bandwidth,
    )


def row(topology: str, chip: Chip, found: Cost) -> list[str]:
    """The cells of a plan, under `HEAD`."""
    head = [
        topology,
        ", ".join(f"{axis}={size}" for axis, size in found.mesh.items() if size > 1),
        f"{found.memory / GIB:.2f} / {(found.limit or chip.hbm) / GIB:.2f}",
        "yes" if found.fits else "no",
        f"{found.flops / TERA:.3f}",
    ]
    if found.hbm is None:
        return [*head, *["-"] * (len(HEAD) - len(head))]
    seconds = times(chip, found)
    bound = found.model_flops / chip.peak / max(seconds)
    sent = sum(c.sent for c in found.collectives)
    figures = [f"{found.hbm / GB:.2f}", f"{sent / GB:.3f}"]
    return [*head, *figures, *(f"{1e3 * s:.2f}" for s in seconds), f"{100 * bound:.0f}%"]


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _exchanges(topology: str, found: Cost) -> str:
    """The collectives of one plan by kind and group."""
    sums: dict[tuple[str, int], list[float]] = {}
    for c in found.collectives:
        entry = sums.setdefault((c.kind, c.group), [0, 0.0, 0.0])
        entry[0] += c.times
        entry[1] += c.times * c.bytes
        entry[2] += c.sent
    rows = [
        [kind, str(group), f"{count:,}", f"{whole / GB:.3f}", f"{sent / GB:.3f}"]
        for (kind, group), (count, whole, sent) in sorted(sums.items())
    ]
    if not rows:
        return ""
    axes = ", ".join(f"{axis}={size}" for axis, size in found.mesh.items() if size > 1)
    head = ("collective", "chips", "times", "arrays (GB)", "sent (GB)")
    return f"Between chips, {topology} with {axes}:\n\n{table(head, rows)}"


def _remedies(
    build: Callable, options: dict[str, Any], devices: list[Any], found: Cost, tell: Callable
) -> str:
    """What was tried to make a plan fit, and whether it did."""
    tried, helped = [], set()
    for kind, text, changed, mesh in _changes(options, found, len(devices)):
        if kind in helped:
            continue
        tell(f"it does not fit; trying {text}")
        try:
            got = cost(build(**changed), devices, mesh)
        except InputError:
            continue
        helped |= {kind} if got.fits else set()
        verdict = "fits" if got.fits else "does not fit"
        tried.append(f"- {text}: {verdict}, {got.memory / GIB:.2f} GiB")
    return "It does not fit. Tried instead:\n\n" + "\n".join(tried)


def _changes(options: dict[str, Any], found: Cost, chips: int) -> Iterator[tuple]:
    """(kind, words, options changed, mesh) to try, mildest first."""
    same = ",".join(f"{axis}={size}" for axis, size in found.mesh.items())
    remat = {"remat": True} if options.get("remat") is False else {}
    if remat:
        yield "remat", "--remat", remat, same
    for pieces in (2, 4, 8, 16):
        if "accumulate" in options:
            more = options["accumulate"] * pieces
            yield "accumulate", f"--accumulate {more}", {"accumulate": more}, same
    tensor = found.mesh["tensor"]
    for share in (4, 16, 64, chips // tensor):
        if share > found.mesh["fsdp"] and chips % (share * tensor) == 0:
            yield "fsdp", f"--mesh fsdp={share}", {}, f"fsdp={share},tensor={tensor}"
    if remat:
        yield "both", "--remat with fsdp over all chips", remat, f"fsdp=-1,tensor={tensor}"
