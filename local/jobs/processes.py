"""One script in several processes: so many at a time, stopped together."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from local.io.errors import CanopyError
from local.jobs.interruption import (
    EXIT_ABORTED,
    EXIT_CONTINUE,
    SIGNALS,
    Interrupted,
    bound_to_this_process,
    requested,
    stop_if_asked,
)
from local.jobs.locks import inherited

# Activations are megabytes that every step takes and gives back. glibc hands such blocks to the
# kernel and faults them in anew each time; kept, and in huge pages, a training step of the small
# network takes 10 to 20 % less processor time (`bin/profile_step.py`). Other C libraries ignore it.
KEEP_MEMORY = ":".join(
    [
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=1073741824",
        "glibc.malloc.trim_threshold=1073741824",
    ]
)


def run_each(
    script: Path, tasks: list[list[str]], n_parallel: int, device: str, n_gpus: int = 1
) -> None:
    """Run `script` once for each list of options, `n_parallel` at a time.

    Each process computes on one share of `n_parallel` of the cores, and on `n_gpus` GPUs of its own
    when there are several. The first failure stops the rest and is raised. A signal that asks this
    process to stop is passed on, and what was running is waited for, as it saves its work. When
    this process is killed, those it started stop by themselves at the end of their step.
    """
    waiting, free = list(tasks), list(range(n_parallel))
    running: list[tuple[subprocess.Popen, list[str], int]] = []
    try:
        while waiting or running:
            stop_if_asked(script.name)
            while waiting and len(running) < n_parallel:
                options, place = waiting.pop(0), free.pop(0)
                gpus = range(place * n_gpus, (place + 1) * n_gpus) if device == "cuda" else ()
                process = _begin([str(script), *options], n_parallel, gpus)
                running.append((process, options, place))
            process, options, place = running[0]
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                running.append(running.pop(0))
                continue
            running.pop(0)
            free.append(place)
            _check_end(script, options, process.returncode)
    except KeyboardInterrupt:
        for process, *_ in running:
            process.kill()
        raise
    finally:
        _stop([process for process, *_ in running])


def _begin(command: list[str], n_parallel: int, gpus: Sequence[int]) -> subprocess.Popen:
    locks, descriptors = inherited()
    environment = os.environ | bound_to_this_process() | locks
    environment.setdefault("GLIBC_TUNABLES", KEEP_MEMORY)
    # The user's limit is shared out: on a machine with other work, threads that nobody runs for
    # are waited for at every step.
    cores = int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0] or os.cpu_count() or 1)
    environment["OMP_NUM_THREADS"] = str(max(1, cores // n_parallel))
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = _visible(gpus)
    return subprocess.Popen([sys.executable, *command], env=environment, pass_fds=descriptors)


def _visible(gpus: Sequence[int]) -> str:
    """Names of some of the GPUs that this process sees; after the last comes the first."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else list(map(str, range(torch.cuda.device_count())))
    return ",".join(names[gpu % len(names)] for gpu in gpus)


def _check_end(script: Path, options: list[str], code: int) -> None:
    """Raise what a process's exit code means, unless it is 0."""
    if code == 0:
        return
    call = f"{script.name} {' '.join(options)}"
    # Asked to stop before it listens, a process dies of the signal, and nothing is lost.
    died_of_request = code in [-number for number in SIGNALS] or code == EXIT_ABORTED
    if code == EXIT_CONTINUE or (requested() and died_of_request):
        raise Interrupted(requested() or "a signal to one of its processes", call)
    raise CanopyError(
        f"{call} ended with code {code}; its message stands above, and the same command goes on "
        "from what is done"
    )


def _stop(processes: list[subprocess.Popen]) -> None:
    """Ask processes to stop and wait until they have; a further Ctrl-C ends them at once."""
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        raise
