"""Orbax's event loops, ended with the last of their tasks and not with the first that fails."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any


async def _with_siblings(main: Coroutine) -> Any:
    """The result or error of a coroutine, once every task that it began has ended."""
    try:
        return await main
    finally:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def loops_that_end() -> Iterator[None]:
    """While active, a failed Orbax read or write waits for its sibling tasks, so only one error
    is printed.

    Orbax ends its event loop at the first task that fails, and each of the others would print a
    traceback later. Its own function that runs a coroutine is wrapped, in all threads; other
    event loops are not touched. Where a version of Orbax has no such function, nothing is
    changed and the tracebacks are printed.
    """
    from orbax.checkpoint._src import asyncio_utils

    usual = getattr(asyncio_utils, "_run_sync_via_new_loop", None)
    if usual is None:
        yield
        return
    asyncio_utils._run_sync_via_new_loop = lambda main: usual(_with_siblings(main))
    try:
        yield
    finally:
        asyncio_utils._run_sync_via_new_loop = usual
