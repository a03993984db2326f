"""One program on one device, many, or many machines: meshes, shardings, pmap, processes."""

from diffjax.parallel.distributed import connect, is_main, stop_together
from diffjax.parallel.mesh import (
    abstract,
    to_global_arrays,
    fsdp_gradient,
    init_sharded,
    jit_train_step,
    jit_step,
    keys,
    make_mesh,
    replicated,
    row_shards,
    rows,
    shardings,
    share_of_batch,
    spec,
)
from diffjax.parallel.pmap import pmap_gradient, pmap_train_step, pmap_step

__all__ = [
    "abstract",
    "connect",
    "to_global_arrays",
    "fsdp_gradient",
    "init_sharded",
    "is_main",
    "jit_train_step",
    "jit_step",
    "keys",
    "make_mesh",
    "pmap_gradient",
    "pmap_train_step",
    "pmap_step",
    "replicated",
    "row_shards",
    "rows",
    "shardings",
    "share_of_batch",
    "spec",
    "stop_together",
]
