"""What every stage script shares: options, places, logs, exit codes, the record of a run.

PyTorch is imported where it is used: it takes seconds, and not all scripts need it.
"""

import argparse
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from local import __version__
from local.config import Config, dump_config, load_config
from local.data.tables import check_source, tables_digest
from local.features.npz import feature_id
from local.io.errors import CanopyError
from local.io.files import DISK_FAULTS, disk_fault, make_folder, write_json, write_text
from local.io.limits import safe_name
from local.jobs.interruption import EXIT_CONTINUE, Interrupted, forget, listen
from local.jobs.locks import lock_folder
from local.jobs.processes import EXIT_INTERRUPTED, run_each

log = logging.getLogger("canopy")

EXIT_FAILURE = 1


def run_script(main: Callable[[], int]) -> int:
    """Run a script's `main`; turn faults of the user's input into one line and an exit code.

    Exit codes: 0 done, 1 failure, 2 usage (argparse), 75 stopped on request where it goes on, 130
    aborted by a second Ctrl-C.
    """
    listen()
    try:
        return main()
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        print(f"error: {disk_fault(error.filename or 'a file', error)}", file=sys.stderr)
        return EXIT_FAILURE
    except Interrupted as stop:
        print(f"{stop}; the same command goes on from here", file=sys.stderr)
        return EXIT_CONTINUE
    except KeyboardInterrupt:
        print("aborted; the same command goes on from what was saved", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        forget()


# ---------------------------------------------------------------------------- options and places


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all stages take."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="demo", help="name of the recipe (default: demo)")
    parser.add_argument("--conf", type=Path, help="version (default: conf/RECIPE/default.yaml)")
    parser.add_argument("--tag", help="name of the experiment (default: the version's file name)")
    parser.add_argument("--datadir", type=Path, help="raw data (default: data/RECIPE)")
    parser.add_argument("--dumpdir", type=Path, help="tables, features (default: dump/RECIPE)")
    parser.add_argument("--expdir", type=Path, help="experiments (default: exp/RECIPE)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel processes")
    parser.add_argument("--force", action="store_true", help="run even if it was done before")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one value of the configuration; may be given again",
    )
    return parser


@dataclass(frozen=True)
class Run:
    """One invocation: its configuration and where things lie."""

    config: Config
    datadir: Path
    dumpdir: Path
    exp: Path
    device: str
    nj: int
    force: bool
    cache: Path | None = None

    @property
    def tables(self) -> Path:
        """Folder of the three tables."""
        return self.dumpdir / "tables"

    @property
    def features(self) -> Path:
        """Folder of the npz files that this configuration's front end makes of these recordings."""
        preparation = tables_digest(self.tables, "recordings")
        return self.dumpdir / feature_id(self.config, preparation)

    def cycle(self, cycle: int) -> Path:
        """Folder of a relabelling cycle; cycle 0 knows true labels only."""
        return self.exp / f"cycle{cycle}"

    def fold(self, cycle: int, fold: int) -> Path:
        """Folder of one fold's model."""
        return self.cycle(cycle) / f"fold{fold}"


@contextmanager
def started(args: argparse.Namespace, stage: str, *, shared: bool = False) -> Iterator[Run]:
    """`start` under the lock of the experiment's folder, which is held inside the block.

    With `shared`, others that share may work in the same experiment, as folds do.
    """
    run = plan(args, stage)
    with lock_folder(run.exp, "this experiment", shared=shared):
        yield _begin(run, args, stage)


def start(args: argparse.Namespace, stage: str) -> Run:
    """Load the configuration, choose the device, open the log file of the stage."""
    return _begin(plan(args, stage), args, stage)


def plan(args: argparse.Namespace, stage: str) -> Run:
    """What will run, before anything is written."""
    conf = args.conf or Path("conf") / args.recipe / "default.yaml"
    config = load_config(conf, args.overrides)
    if args.nj < 1:
        raise CanopyError(f"--nj is {args.nj}, expected at least 1")
    tag = safe_name(args.tag or conf.stem, "--tag")
    run = Run(
        config=config,
        datadir=args.datadir or Path("data") / args.recipe,
        dumpdir=args.dumpdir or Path("dump") / args.recipe,
        exp=(args.expdir or Path("exp") / args.recipe) / tag,
        device=choose_device(args.device),
        nj=args.nj,
        force=args.force,
        cache=chosen_cache(getattr(args, "cache", None)),
    )
    # With --force the check of the configuration goes on: the preparation makes the tables anew.
    if not (run.force and stage == "check"):
        check_source(run.tables, run.datadir)
    return run


def _begin(run: Run, args: argparse.Namespace, stage: str) -> Run:
    start_log(run.exp / "logs" / f"{stage}.log")
    write_text(run.exp / "config.yaml", dump_config(run.config))
    places = {name: str(getattr(run, name).resolve()) for name in ("datadir", "dumpdir")}
    record = environment_record(run.config, run.device) | {"recipe": args.recipe} | places
    write_json(run.exp / "run.json", record)
    return run


def folds_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of the stages that work fold by fold."""
    parser = stage_parser(description)
    parser.add_argument("--cycle", type=int, default=0, help="relabelling cycle (default: 0)")
    parser.add_argument("--folds", default="", help='folds to work on, as "0 1" (default: all)')
    parser.add_argument("--n-gpus", type=int, default=0, help="GPUs to use (default: all)")
    parser.add_argument(
        "--fold",
        type=int,
        nargs="+",
        metavar="K",
        help="work on this fold, or on these one after another, in this very process",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="copy what is read of the dump to this folder of this machine's own disk, or none "
        "(default: CANOPY_CACHE, else SLURM_TMPDIR, where they are set)",
    )
    return parser


def chosen_cache(text: str | None) -> Path | None:
    """Folder of an option `--cache`, by default of the environment; None to read in place.

    Variables in it are this machine's, which for a job of a cluster is the node.
    """
    if text is None:
        text = os.environ.get("CANOPY_CACHE") or os.environ.get("SLURM_TMPDIR") or "none"
    folder = os.path.expandvars(text)
    if folder == "none":
        return None
    if not os.path.isabs(folder) or "$" in folder:
        raise CanopyError(
            f"the cache is {text}, expected none or a folder's whole path, of variables that are "
            "set on this machine; correct --cache, CANOPY_CACHE or SLURM_TMPDIR"
        )
    return Path(folder)


def chosen_folds(text: str, n_folds: int) -> list[int]:
    """Fold numbers of an option like "0 1" or "0,1"; all when it is empty."""
    try:
        folds = [int(part) for part in text.replace(",", " ").split()] or list(range(n_folds))
    except ValueError:
        raise CanopyError(f'--folds is {text!r}, expected numbers such as "0 1"') from None
    wrong = [fold for fold in folds if not 0 <= fold < n_folds]
    if wrong:
        raise CanopyError(f"--folds names fold {wrong[0]}; split.n_folds is {n_folds}, from 0 on")
    return sorted(set(folds))


def run_folds(run: Run, folds: list[int], n_gpus: int, argv: list[str], n_ranks: int = 1) -> None:
    """Run the calling script on some folds in processes of their own, several at a time.

    Each process takes its share of the folds one after another: starting one takes seconds.

    n_ranks : processes that a fold starts in turn, each on a core or a GPU.
    """
    import torch

    # Not by how many folds are waiting: the number of threads decides the last digits, and a fold
    # that is made again must come out the same.
    n_parallel = min(max(1, run.nj // n_ranks), run.config.split.n_folds)
    if run.device == "cuda":
        there = torch.cuda.device_count()
        n_parallel = max(1, min(n_gpus or there, there) // n_ranks)
    # Ranks that were started together end together: a fold of theirs is a process of its own.
    n_shares = n_parallel if n_ranks == 1 else len(folds)
    shares = [share for k in range(n_shares) if (share := folds[k::n_shares])]
    tasks = [[*argv, "--fold", *map(str, share)] for share in shares]
    run_each(Path(sys.argv[0]).resolve(), tasks, n_parallel, run.device, n_ranks)


def choose_device(name: str) -> str:
    """`auto` is `cuda` when there is one; a GPU that is asked for and absent is refused."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise CanopyError("--device cuda: PyTorch finds no GPU here; give --device cpu or auto")
    return name


def start_log(path: Path) -> None:
    """Log lines with time and level to stderr and, appended, to `path`."""
    make_folder(path.parent)
    try:
        handlers: list[logging.Handler] = [_TqdmHandler(), _LogFile(path, encoding="utf-8")]
    except OSError as error:
        raise disk_fault(path, error) from None
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        handlers=handlers,
        force=True,
    )


class _LogFile(logging.FileHandler):
    """A log file that says once on stderr when it cannot be written, and is no reason to stop."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            tqdm.write(str(disk_fault(self.baseFilename, error)), file=sys.stderr)


class _TqdmHandler(logging.StreamHandler):
    """A stderr handler whose lines do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


# --------------------------------------------------------------------- processes and environment


def set_threads(n_threads: int | None = None) -> None:
    """Compute on `n_threads` cores; by default on what OMP_NUM_THREADS says, else all."""
    import torch

    torch.set_num_threads(n_threads or int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


def environment_record(config: Config, device: str) -> dict[str, Any]:
    """What a result depends on beside its inputs: code, versions, device, seed, command."""
    import torch

    record = {
        "canopy": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": device,
        "cpu_count": os.cpu_count(),
        "seed": config.seed,
        "command": sys.argv,
    }
    if device == "cuda":
        record["gpu"] = torch.cuda.get_device_name(0)
    return record


def _commit() -> str | None:
    """Commit of the code, with `+changes` when the tree differs; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+changes", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
