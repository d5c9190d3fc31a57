"""What every stage script shares: options, places, stamps, logs, exit codes, the record of a run.

A stage is done when its stamp `<stage>.done.json` exists and holds the fingerprint of the inputs
and settings it would run with now, and its outputs are still what it wrote. Anything else is run
again.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from local import __version__
from local.config import Config, dump_config, load_config
from local.errors import CanopyError
from local.features import feature_id
from local.files import file_digest, fingerprint, write_json, write_text
from local.tables import check_source, tables_digest

log = logging.getLogger("canopy")

EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130


def run_script(main: Callable[[], int]) -> int:
    """Run a script's `main`; turn faults of the user's input into one line and an exit code.

    Exit codes: 0 done, 1 failure, 2 usage (argparse), 130 interrupted.
    """
    try:
        return main()
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED


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


def start(args: argparse.Namespace, stage: str) -> Run:
    """Load the configuration, choose the device, open the log file of the stage."""
    conf = args.conf or Path("conf") / args.recipe / "default.yaml"
    config = load_config(conf, args.overrides)
    if args.nj < 1:
        raise CanopyError(f"--nj is {args.nj}, expected at least 1")
    run = Run(
        config=config,
        datadir=args.datadir or Path("data") / args.recipe,
        dumpdir=args.dumpdir or Path("dump") / args.recipe,
        exp=(args.expdir or Path("exp") / args.recipe) / (args.tag or conf.stem),
        device=choose_device(args.device),
        nj=args.nj,
        force=args.force,
    )
    # With --force the check of the configuration goes on: the preparation makes the tables anew.
    if not (run.force and stage == "check"):
        check_source(run.tables, run.datadir)
    start_log(run.exp / "logs" / f"{stage}.log")
    write_text(run.exp / "config.yaml", dump_config(config))
    places = {name: str(getattr(run, name).resolve()) for name in ("datadir", "dumpdir")}
    record = environment_record(config, run.device) | {"recipe": args.recipe} | places
    write_json(run.exp / "run.json", record)
    return run


def folds_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of the stages that work fold by fold."""
    parser = stage_parser(description)
    parser.add_argument("--cycle", type=int, default=0, help="relabelling cycle (default: 0)")
    parser.add_argument("--folds", default="", help='folds to work on, as "0 1" (default: all)')
    parser.add_argument("--n-gpus", type=int, default=0, help="GPUs to use (default: all)")
    parser.add_argument("--fold", type=int, help="work on this one fold in this very process")
    return parser


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


def run_folds(run: Run, folds: list[int], n_gpus: int, argv: list[str]) -> None:
    """Run the calling script once a fold, in processes of their own, several at a time."""
    # Not by how many folds are waiting: the number of threads decides the last digits, and a fold
    # that is made again must come out the same.
    n_parallel = min(run.nj, run.config.split.n_folds)
    if run.device == "cuda":
        n_parallel = min(n_gpus or torch.cuda.device_count(), torch.cuda.device_count())
    script = Path(sys.argv[0]).resolve()
    run_each(script, [[*argv, "--fold", str(fold)] for fold in folds], n_parallel, run.device)


def choose_device(name: str) -> str:
    """`auto` is `cuda` when there is one; a GPU that is asked for and absent is refused."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise CanopyError("--device cuda: PyTorch finds no GPU here; give --device cpu or auto")
    return name


def start_log(path: Path) -> None:
    """Log lines with time and level to stderr and, appended, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [_TqdmHandler(), logging.FileHandler(path, encoding="utf-8")]
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        handlers=handlers,
        force=True,
    )


class _TqdmHandler(logging.StreamHandler):
    """A stderr handler whose lines do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


# --------------------------------------------------------------------------------------- stamps


class Stamp:
    """The mark that a stage ran with these inputs and settings and left these outputs."""

    def __init__(self, path: Path, settings: Any, inputs: list[Path]) -> None:
        self.path = path
        absent = [str(item) for item in inputs if not item.is_file()]
        if absent:
            raise CanopyError(f"{absent[0]} is missing; run the stage that writes it first")
        digests = {str(item): file_digest(item) for item in inputs}
        # Paths are left out: a run that was moved or is given by another path is still done.
        self.fingerprint = fingerprint(
            {"version": __version__, "settings": settings, "inputs": list(digests.values())}
        )

    def is_done(self, force: bool = False) -> bool:
        """True, with a log line, when the stage has nothing to do."""
        done = not force and self.matches()
        if done:
            log.info("%s: done before with the same inputs and settings, skipped", self.path)
        return done

    def matches(self) -> bool:
        """Whether the mark is there, of these inputs and settings, and the outputs are whole."""
        if not self.path.is_file():
            return False
        try:
            stamp = json.loads(self.path.read_text(encoding="utf-8"))
            outputs = stamp["outputs"]
            return stamp["fingerprint"] == self.fingerprint and all(
                file_digest(self.path.parent / name) == digest for name, digest in outputs.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def clear(self) -> None:
        """Take the mark away before work begins that will change the outputs."""
        self.path.unlink(missing_ok=True)

    def write(self, outputs: list[Path], **notes: Any) -> None:
        """Mark the stage as done; `outputs` lie in or below the stamp's folder."""
        digests = {
            os.path.relpath(output, self.path.parent): file_digest(output) for output in outputs
        }
        write_json(self.path, {"fingerprint": self.fingerprint, "outputs": digests, "notes": notes})


# ------------------------------------------------------------------------ preparation of recipes


def prepare_arguments(description: str | None, argv: list[str] | None = None) -> tuple[Any, Config]:
    """Options of a recipe's preparation, and the configuration."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datadir", type=Path, required=True, help="folder of the raw data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables to write")
    parser.add_argument("--conf", type=Path, required=True, help="version, for `prepare:`")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel processes")
    parser.add_argument("--force", action="store_true", help="prepare even if done before")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args(argv)
    start_log(args.out / "prepare.log")
    return args, load_config(args.conf, args.overrides)


def prepare_tables(
    args: Any,
    *,
    settings: dict[str, Any],
    inputs: list[Path],
    folders: list[Path],
    convert: Callable[[], None],
) -> int:
    """Call `convert` unless the tables in `args.out` were made from the same data and settings.

    `inputs` are annotation files (compared by content), `folders` hold recordings (compared by
    name, size and time of change, because reading a corpus to see that it is unchanged takes long).
    """
    if not args.force:
        check_source(args.out, args.datadir)
    absent = [path for path in inputs if not path.is_file()]
    if absent:
        raise CanopyError(f"{absent[0]}: no such file; complete the data or check --datadir")
    listings = {folder.name: _listing(folder) for folder in folders}
    stamp = Stamp(args.out / "prepare.done.json", {**settings, "files": listings}, inputs)
    if stamp.is_done(args.force):
        return 0
    stamp.clear()
    convert()
    stamp.write([args.out / f"{name}.csv" for name in ("recordings", "events", "classes")])
    log.info("tables of %s written to %s", args.datadir, args.out)
    return 0


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    if not folder.is_dir():
        raise CanopyError(f"{folder}: no such folder; check --datadir")
    return sorted(
        (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in os.scandir(folder)
        if entry.is_file()
    )


# --------------------------------------------------------------------- processes and environment


def run_each(script: Path, tasks: list[list[str]], n_parallel: int, device: str) -> None:
    """Run `script` once for each list of options, `n_parallel` at a time.

    Each process computes on one share of `n_parallel` of the cores, and on a GPU of its own when
    there are several.
    The first failure stops the rest and is raised.
    """
    threads = max(1, (os.cpu_count() or 1) // n_parallel)
    waiting, running = list(enumerate(tasks)), []
    try:
        while waiting or running:
            while waiting and len(running) < n_parallel:
                position, options = waiting.pop(0)
                environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
                if device == "cuda" and "CUDA_VISIBLE_DEVICES" not in os.environ:
                    gpu = position % torch.cuda.device_count()
                    environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
                command = [sys.executable, str(script), *options]
                running.append((subprocess.Popen(command, env=environment), options))
            process, options = running[0]
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                running.append(running.pop(0))
                continue
            running.pop(0)
            if process.returncode:
                raise CanopyError(
                    f"{script.name} {' '.join(options)} ended with code {process.returncode}; its "
                    "message stands above, and the same command goes on from what is done"
                )
    finally:
        for process, _ in running:
            process.terminate()
        for process, _ in running:
            process.wait()


def set_threads(n_threads: int | None = None) -> None:
    """Compute on `n_threads` cores; by default on what OMP_NUM_THREADS says, else all."""
    torch.set_num_threads(n_threads or int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


def environment_record(config: Config, device: str) -> dict[str, Any]:
    """What a result depends on beside its inputs: code, versions, device, seed, command."""
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
