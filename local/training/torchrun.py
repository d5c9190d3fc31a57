"""Start a script as several ranks, on one node or more, by PyTorch's torchrun.

On one node this process is torchrun's agent: it starts the ranks, ends all when one died, and
starts them again. Of several nodes each has such a process; in a job of Slurm `srun` starts them,
elsewhere the user does.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from local.io.errors import CanopyError
from local.io.files import write_text
from local.jobs.interruption import (
    SIGNALS,
    Interrupted,
    bound_to_this_process,
    requested,
    stop_if_asked,
)

# Environment: a file in which a rank says why there is no use in trying again.
_FAULT = "CANOPY_FAULT"
_PORT = 29400
# Seconds that nodes whose ranks have 30 to save are waited for.
_WAIT_S = 60


@dataclass(frozen=True)
class LaunchConfig:
    """How many processes work together, and where they meet.

    ranks, nodes : processes on each node, and nodes.
    address : HOST or HOST:PORT of the first node; "" leaves it to Slurm.
    node : this node's number; -1 leaves it to Slurm.
    """

    ranks: int = 1
    nodes: int = 1
    address: str = ""
    node: int = -1
    max_restarts: int = 3

    @property
    def alone(self) -> bool:
        """Whether one process is all."""
        return self.ranks * self.nodes == 1

    def check(self, device: str) -> None:
        """Refuse numbers that cannot be."""
        for name, number in (("--ranks", self.ranks), ("--n-nodes", self.nodes)):
            if number < 1:
                raise CanopyError(f"{name} is {number}, expected 1 or more")
        if device == "cuda":
            import torch

            n_gpus = torch.cuda.device_count()
            if self.ranks > n_gpus:
                raise CanopyError(
                    f"--ranks is {self.ranks}, but there are {n_gpus} GPUs here; give no more "
                    "ranks, or --device cpu"
                )
        if self.nodes > 1 and not self.address and "SLURM_JOB_NODELIST" not in os.environ:
            raise CanopyError(
                f"--n-nodes is {self.nodes} outside a job of Slurm: give the command on every node "
                "with --master-addr HOST and --node-rank 0, 1 ..."
            )


def run_ranks(script: Path, options: list[str], launch: LaunchConfig, note: Path) -> None:
    """Run `script` in processes that work together, until all ended well.

    When one dies, all are ended and started again, `max_restarts` times; they resume from what they
    saved. Ranks that end with a fault of the user's (`tell_fault`) are not started again. A signal
    is passed on: the ranks have 30 seconds to save.

    Parameters
    ----------
    note : file in which a rank tells of a fault, on a disk that all nodes share.

    Raises
    ------
    CanopyError
        A rank's fault, or that they died too often.
    Interrupted
        This process was asked to stop.
    """
    call = f"{script.name} {' '.join(options)}"
    if launch.nodes > 1 and not launch.address:
        _run_on_nodes(script, options, launch, call)
    else:
        _run_here(script, options, launch, note, call)


def _run_here(
    script: Path, options: list[str], launch: LaunchConfig, note: Path, call: str
) -> None:
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig as ElasticLaunchConfig
    from torch.distributed.launcher.api import elastic_launch

    # What it tells of itself is not for users.
    logging.getLogger("torch.distributed").setLevel(logging.WARNING)
    node = _node_number(launch)
    host, _, port = (launch.address or "localhost:0").partition(":")
    if not port.isdigit() and port:
        raise CanopyError(f"--master-addr is {launch.address!r}, expected HOST or HOST:PORT")
    if node == 0:
        note.unlink(missing_ok=True)
    os.environ.update(_environment(launch, note))
    try:
        with tempfile.TemporaryDirectory(prefix="canopy-ranks-") as folder, _signals_raise(call):
            config = ElasticLaunchConfig(
                min_nodes=launch.nodes,
                max_nodes=launch.nodes,
                nproc_per_node=launch.ranks,
                run_id=note.stem,
                rdzv_backend="c10d",
                rdzv_endpoint=f"{host}:{port or _PORT}",
                rdzv_configs={"is_host": node == 0},
                local_addr=None if launch.address else "localhost",
                max_restarts=launch.max_restarts,
                # Those of `_signals_raise` stay as they are.
                signals_to_handle="SIGHUP,SIGQUIT",
                logs_specs=DefaultLogsSpecs(log_dir=folder),
            )
            elastic_launch(config, sys.executable)(str(script), *options)
    except SignalException as stop:
        raise Interrupted(stop.sigval.name, call) from None
    except ChildFailedError as error:
        _raise_fault(note)
        rank, failure = error.get_first_failure()
        raise CanopyError(
            f"{call}: rank {rank} ended with code {failure.exitcode} after {launch.max_restarts} "
            "restarts; its message stands above, and the same command resumes from what is done"
        ) from None
    _raise_fault(note)


def _environment(launch: LaunchConfig, note: Path) -> dict[str, str]:
    """What the ranks find in their environment beside ours."""
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    return bound_to_this_process() | {
        _FAULT: str(note.absolute()),
        "OMP_NUM_THREADS": str(max(1, threads // launch.ranks)),
        # The store that ranks share with who started them outlives them: those started again may
        # read where the dead were to be met, and wait for them for ever. Each start has its own.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        # PyTorch's advice about parameters without gradients and layouts is not for users.
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
    }


@contextmanager
def _signals_raise(call: str) -> Iterator[None]:
    """The first signal ends torchrun's agent, which passes it on; others do not disturb its wait.

    A second Ctrl-C aborts. Afterwards signals are noted again.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException

    def end(number: int, _frame: FrameType | None) -> None:
        for later in SIGNALS:
            interrupt = later == signal.SIGINT
            signal.signal(later, signal.default_int_handler if interrupt else signal.SIG_IGN)
        raise SignalException(call, signal.Signals(number))

    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        stop_if_asked(call)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _node_number(launch: LaunchConfig) -> int:
    if launch.nodes == 1:
        return 0
    number = launch.node if launch.node >= 0 else int(os.environ.get("SLURM_NODEID", "-1"))
    if not 0 <= number < launch.nodes:
        raise CanopyError(
            f"--n-nodes is {launch.nodes}: give this one's --node-rank, from 0 to "
            f"{launch.nodes - 1}"
        )
    return number


def _raise_fault(note: Path) -> None:
    # It stays: other nodes read it too.
    if note.is_file():
        raise CanopyError(note.read_text(encoding="utf-8").strip())


def _run_on_nodes(script: Path, options: list[str], launch: LaunchConfig, call: str) -> None:
    """The same on every node of this job of Slurm, by `srun`."""
    for program in ("srun", "scontrol"):
        if shutil.which(program) is None:
            raise CanopyError(f"no {program} on PATH, which starts the {launch.nodes} nodes")
    names = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    hosts = subprocess.run(names, capture_output=True, text=True, check=False).stdout.split()
    if len(hosts) < launch.nodes:
        raise CanopyError(
            f"--n-nodes is {launch.nodes}, but this job has {len(hosts)}; ask sbatch for --nodes="
            f"{launch.nodes}"
        )
    # Jobs of one user that share a node must not meet at one port.
    port = _PORT + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000
    command = ["srun", f"--nodes={launch.nodes}", f"--ntasks={launch.nodes}"]
    # Nodes that were asked to stop end one after the other; none is killed while it saves.
    command += ["--ntasks-per-node=1", "--kill-on-bad-exit=0", f"--wait={_WAIT_S}"]
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
        command.append(f"--cpus-per-task={cpus}")
    command += [sys.executable, str(script), *options, "--master-addr", f"{hosts[0]}:{port}"]
    process, asked = subprocess.Popen(command), ""
    while process.poll() is None:
        if requested() and not asked:
            # This one it passes on; at SIGTERM it kills what it has started.
            asked = requested()
            process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
    if asked:
        raise Interrupted(asked, call)
    if process.returncode:
        raise CanopyError(f"srun ended with code {process.returncode}; its message stands above")


# ------------------------------------------------------------------------------------- in a rank


def was_restarted() -> bool:
    """Whether a rank died and this one is of those that were started again."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def has_failed_before() -> bool:
    """Whether this rank was started again although one has said that it is of no use."""
    return was_restarted() and _FAULT in os.environ and Path(os.environ[_FAULT]).is_file()


def tell_fault(error: CanopyError) -> None:
    """Leave the reason to the process that started the ranks, which says it once."""
    if path := os.environ.get(_FAULT):
        write_text(Path(path), f"{error}\n")
    else:
        print(f"error: {error}", file=sys.stderr)
