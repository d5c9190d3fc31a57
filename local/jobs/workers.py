"""Many recordings in many processes, where a process that is killed costs no more than its own.

The system kills processes when memory runs out, and a library may crash on a hostile file. The
recordings that were in work then are tried again one at a time; the one that kills its process each
time is told apart from the others.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

log = logging.getLogger("canopy")

Item = TypeVar("Item")

# Processes killed by one item alone before it is given up.
_TRIES = 2
# Items under way for each process, so that none is idle while a long one is waited for.
_AHEAD = 4

KILLED = (
    f"the process that worked on it was killed {_TRIES} times with nothing else beside it, most "
    "likely for want of memory"
)


class Killed:
    """Stands for the result of an item whose process was killed each time it ran alone."""


def run_all(
    work: Callable[[Item], Any],
    items: Iterable[Item],
    n_processes: int,
    method: str = "spawn",
    begin: Callable[[], None] | None = None,
) -> Iterator[tuple[Item, Any]]:
    """Each item with what `work` makes of it, in the order of the items.

    Parameters
    ----------
    work : can be sent to other processes, as can items and results.
    method : how processes are started; a forked one may inherit a locked thread pool and hang.
    begin : called first in each process.

    Yields
    ------
    Item and result; `Killed` for an item that kills its process. What `work` raises is raised.
    """
    rest = iter(items)
    flying: deque[tuple[Item, Future]] = deque()
    while True:
        pool = _pool(n_processes, method, begin)
        try:
            for item in rest:
                flying.append((item, Future()))  # kept, should the pool take no more
                flying[-1] = item, pool.submit(work, item)
                if len(flying) >= _AHEAD * n_processes:
                    yield flying[0][0], flying[0][1].result()
                    flying.popleft()
            while flying:
                yield flying[0][0], flying[0][1].result()
                flying.popleft()
            return
        except BrokenProcessPool:
            log.warning(
                "a process was killed, most likely for want of memory (a smaller --nj takes less); "
                "going on one by one with the %d recordings under way",
                len(flying),
            )
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        yield from _one_by_one(work, flying, method, begin)
        flying.clear()


def _one_by_one(
    work: Callable[[Item], Any],
    flying: Iterable[tuple[Item, Future]],
    method: str,
    begin: Callable[[], None] | None,
) -> Iterator[tuple[Item, Any]]:
    """What was under way when a process was killed: results that came, all else again, alone."""
    pool = _pool(1, method, begin)
    try:
        for item, future in flying:
            if future.done() and not future.cancelled():
                error = future.exception()
                if error is None:
                    yield item, future.result()
                    continue
                if not isinstance(error, BrokenProcessPool):
                    raise error
            result: Any = Killed()
            for _ in range(_TRIES):
                try:
                    result = pool.submit(work, item).result()
                    break
                except BrokenProcessPool:
                    pool.shutdown(wait=True)
                    pool = _pool(1, method, begin)
            yield item, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(n_processes: int, method: str, begin: Callable[[], None] | None) -> ProcessPoolExecutor:
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(n_processes, context, initializer=_begin, initargs=(begin,))


def _begin(begin: Callable[[], None] | None) -> None:
    # A signal to the whole group is the main process's to answer: it ends its workers in order.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    """A worker whose main process was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
