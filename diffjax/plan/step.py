"""The real training step, compiled for a slice that is not here."""

import importlib.util
import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from diffjax import conditioning, parallel
from diffjax.errors import InputError, sentence
from diffjax.experiment import Experiment
from diffjax.plan.chips import chip_of
from diffjax.plan.flops import matmul_flops
from diffjax.plan.hlo import Collective, collectives, hbm_bytes
from diffjax.run.state import compiled_step, initial_state, training_loss


class Cost(NamedTuple):
    """What one step costs each chip.

    Attributes:
      mesh: sizes of the axes.
      memory: bytes of HBM in use at once.
      limit: bytes that the compiler may use, where they were not enough; None where it fits.
      flops: of matrix products and convolutions, recomputation included.
      model_flops: without recomputation: three times those of the forward pass.
      hbm: bytes read and written; None where there is no program to read.
      collectives: exchanges between chips.
    """

    mesh: dict[str, int]
    memory: float
    limit: float | None
    flops: float
    model_flops: float
    hbm: float | None
    collectives: list[Collective]

    @property
    def fits(self) -> bool:
        """Whether the compiler found room for it."""
        return self.limit is None


def devices_of(topology: str) -> list[Any]:
    """Devices of a slice that need not be there, to compile for.

    Args:
      topology: such as v5e:16x16.

    Returns:
      One device for each chip.

    Raises:
      InputError: no TPU compiler is installed, or it knows no such slice.
    """
    from jax.experimental import topologies

    chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise InputError('--plan needs the TPU compiler: pip install -e ".[tpu]".')
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # libtpu asks Google's servers otherwise
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", topology.partition(":")[0])
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:
        raise InputError(f"there is no TPU slice {topology!r} ({sentence(error)}).") from error


def _batch(experiment: Experiment, data: Any, mesh: jax.sharding.Mesh) -> dict:
    """Shapes of a raw batch: the data's x, and the raw arrays of the conditions."""
    raw = {"x": data, **conditioning.examples(experiment.model.conditions)}

    def rows(like):
        shape = (experiment.batch_size, *like.shape)
        return jax.ShapeDtypeStruct(shape, like.dtype, sharding=parallel.rows(mesh))

    return jax.tree.map(rows, raw)


def _frozen(experiment: Experiment, mesh: jax.sharding.Mesh) -> dict:
    """Shapes of the frozen parameters, sharded by the one rule."""
    loaders = {**experiment.model.frozen, **experiment.frozen}
    found = {name: jax.eval_shape(load) for name, load in loaders.items()}
    return jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        found,
        parallel.shardings(found, mesh),
    )


def compiled_program(traced: jax.stages.Traced) -> tuple[str | None, float]:
    """Compile a traced function for TPUs: (the text of the program, bytes of HBM in use).

    JAX 0.10.2 cannot read all that libtpu 0.0.52 makes for v6e; of such a program the text is None.
    """
    compiled = traced.lower(lowering_platforms=("tpu",)).compile()
    m = compiled.memory_analysis()
    memory = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    memory += m.temp_size_in_bytes + m.generated_code_size_in_bytes
    try:
        return compiled.as_text(), memory
    except jax.errors.JaxRuntimeError:
        return None, memory


def cost(
    experiment: Experiment,
    devices: list[Any],
    mesh: str = "",
    program: Callable[[jax.stages.Traced], tuple[str | None, float]] = compiled_program,
) -> Cost:
    """Compile the training step for the devices, and read what it needs.

    Args:
      experiment: whose step it is.
      devices: from `devices_of`.
      mesh: sizes of the axes, as for `parallel.make_mesh`.
      program: as of `cost_of`.

    Returns:
      The cost for each chip.

    Raises:
      InputError: the mesh or batch does not divide over the devices.
    """
    grid = parallel.make_mesh(mesh, devices)
    frozen = _frozen(experiment, grid)
    init = partial(initial_state, experiment)
    state = parallel.abstract(init, grid, jax.random.key(0), frozen)
    batch = _batch(experiment, experiment.model.example, grid)
    key = jax.eval_shape(jax.random.key, 0)
    step, _ = compiled_step(experiment, parallel.jit_train_step, state, grid, frozen)
    traced = step.trace(state, key, batch, frozen)
    loss = training_loss(experiment)
    forward = jax.make_jaxpr(loss)(state.params, key, batch, frozen, **state.context)
    return cost_of(traced, 3 * matmul_flops(forward.jaxpr), grid, program)


def cost_of(
    traced: jax.stages.Traced,
    model_flops: int,
    mesh: jax.sharding.Mesh,
    program: Callable[[jax.stages.Traced], tuple[str | None, float]] = compiled_program,
) -> Cost:
    """Compile a traced function for the devices of a mesh, and read what it needs.

    Args:
      traced: from `jax.jit(function).trace`, of arguments sharded over the mesh.
      model_flops: without recomputation, of all chips.
      mesh: of devices from `devices_of`.
      program: traced -> (text of the program or None, bytes of HBM); default, the compiler's.

    Returns:
      The cost for each chip.
    """
    chips, shape = mesh.size, dict(mesh.shape)
    flops, model_flops = matmul_flops(traced.jaxpr.jaxpr) / chips, model_flops / chips
    limit = None
    try:
        text, memory = program(traced)
    except jax.errors.JaxRuntimeError as error:
        used = needed(str(error))
        if used is None:
            raise
        text, (memory, limit) = None, used
    hbm, found = (hbm_bytes(text), collectives(text, chips)) if text else (None, [])
    return Cost(shape, memory, limit, flops, model_flops, hbm, found)


REFUSALS = (
    r"[Uu]sed ([\d.]+)([GM]) of ([\d.]+)([GM]) hbm",
    r"required for HLO temporaries \(([\d.]+)([GM])\) exceeds available HBM \(([\d.]+)([GM])\)",
)
"""The compiler's words for a program that does not fit: what it needs, and what there is."""


def needed(message: str) -> tuple[float, float] | None:
    """Bytes needed and bytes there are, from the compiler's refusal; None for another error."""
    for refusal in REFUSALS:
        if found := re.search(refusal, message):
            return _size(*found.groups()[:2]), _size(*found.groups()[2:])
    return None


def _size(number: str, unit: str) -> float:
    return float(number) * 2 ** {"G": 30, "M": 20}[unit]
