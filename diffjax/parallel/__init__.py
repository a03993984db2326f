"""One program on one device, many, or many machines: meshes, shardings, pmap, processes."""

from diffjax.parallel.distributed import connect, is_main, stop_together
from diffjax.parallel.mesh import (
    abstract,
    feed,
    gathered,
    init_sharded,
    jit_form,
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
from diffjax.parallel.pmap import over_devices, pmap_form, pmap_step

__all__ = [
    "abstract",
    "connect",
    "feed",
    "gathered",
    "init_sharded",
    "is_main",
    "jit_form",
    "jit_step",
    "keys",
    "make_mesh",
    "over_devices",
    "pmap_form",
    "pmap_step",
    "replicated",
    "row_shards",
    "rows",
    "shardings",
    "share_of_batch",
    "spec",
    "stop_together",
]
