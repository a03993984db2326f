"""One program on one device, many, or many machines: meshes, shardings, pmap, processes."""

from diffjax.parallel.distributed import connect, is_main, on_main, stop_together, wait_for_all
from diffjax.parallel.mesh import (
    abstract,
    fsdp_gradient,
    init_sharded,
    jit_step,
    jit_train_step,
    keys,
    make_mesh,
    placed_like,
    replicated,
    row_shards,
    rows,
    shardings,
    share_of_batch,
    spec,
    to_global_arrays,
)
from diffjax.parallel.pmap import pmap_gradient, pmap_step, pmap_train_step

__all__ = [
    "abstract",
    "connect",
    "fsdp_gradient",
    "init_sharded",
    "is_main",
    "jit_step",
    "jit_train_step",
    "keys",
    "make_mesh",
    "on_main",
    "placed_like",
    "pmap_gradient",
    "pmap_step",
    "pmap_train_step",
    "replicated",
    "row_shards",
    "rows",
    "shardings",
    "share_of_batch",
    "spec",
    "stop_together",
    "to_global_arrays",
    "wait_for_all",
]
