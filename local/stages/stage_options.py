"""Options that the scripts of several stages take."""

import os
from collections.abc import Iterable
from pathlib import Path

from local.io.errors import CanopyError
from local.jobs.arguments import ScriptParser
from local.stages.stage_graph import STAGES


def stage_parser(description: str | None) -> ScriptParser:
    """The options that all stages take."""
    parser = ScriptParser(description)
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


def preparation_parser(description: str | None) -> ScriptParser:
    """The options of a recipe's preparation."""
    parser = ScriptParser(description)
    parser.add_argument("--datadir", type=Path, required=True, help="folder of the raw data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables to write")
    parser.add_argument("--conf", type=Path, required=True, help="version, for `prepare:`")
    parser.add_argument("--nj", type=int, default=os.cpu_count() or 1, help="parallel processes")
    parser.add_argument("--force", action="store_true", help="prepare even if done before")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    return parser


def folds_parser(description: str | None) -> ScriptParser:
    """Options of the stages that work fold by fold."""
    parser = stage_parser(description)
    parser.add_argument("--cycle", type=int, default=0, help="relabelling cycle (default: 0)")
    parser.add_argument("--folds", default="", help='folds to work on, as "0 1" (default: all)')
    parser.add_argument("--n-gpus", type=int, default=0, help="GPUs to use (default: all)")
    parser.add_argument(
        "--worker",
        action="store_true",
        help="work on the folds one after another in this very process, which others may run "
        "beside, instead of sharing them out to processes",
    )
    parser.add_argument(
        "--cache",
        metavar="DIR",
        help="copy what is read of the dump to this folder of this machine's own disk, or none "
        "(default: CANOPY_CACHE, else SLURM_TMPDIR, where they are set)",
    )
    return parser


def numbers_of(option: str, text: str) -> list[int]:
    """Whole numbers of an option like "0 1" or "0,1"; none when it is empty."""
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise CanopyError(f'{option} is {text!r}, expected numbers such as "0 1"') from None


def chosen_folds(text: str, n_folds: int) -> list[int]:
    """Fold numbers of an option like "0 1" or "0,1"; all when it is empty."""
    folds = numbers_of("--folds", text) or list(range(n_folds))
    wrong = [fold for fold in folds if not 0 <= fold < n_folds]
    if wrong:
        raise CanopyError(f"--folds names fold {wrong[0]}; split.n_folds is {n_folds}, from 0 on")
    return sorted(set(folds))


def check_folds_for(
    stages: Iterable[int], folds: list[int], n_folds: int, cycles: list[int]
) -> None:
    """Refuse some of the folds for stages of which one needs all: relabelling, in its cycles."""
    named = [stage.number for stage in STAGES if stage.repeated]
    if len(folds) < n_folds and any(number in stages for number in named) and any(cycles):
        raise CanopyError(
            f"--folds names {len(folds)} of {n_folds} folds, but relabelling needs the scores of "
            "all; add --stop-stage infer, or --n-cycles 0"
        )


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
