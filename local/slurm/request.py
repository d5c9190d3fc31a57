"""What is asked for, out of a command line, and what is known of it before it runs."""

import argparse
import os
from pathlib import Path
from typing import Any

from local.config import dump_config, load_config
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError
from local.io.files import fingerprint
from local.slurm.conf import ClusterConf, read_conf
from local.slurm.job_graph import Job, RunRequest
from local.stages.completion import folds_and_cycles
from local.stages.settings import resolve
from local.stages.stage_graph import STAGES
from local.stages.stage_options import numbers_of


def request_of(args: argparse.Namespace) -> RunRequest:
    """The run that a command line asks for."""
    if args.force:
        raise CanopyError(
            "--force goes with no --launcher slurm: give another --tag, or remove what is to be "
            "made anew"
        )
    conf = args.conf or Path("conf") / args.recipe / "default.yaml"
    config = load_config(conf, args.overrides)
    if not 0 <= args.stage <= args.stop_stage < len(STAGES):
        last = len(STAGES) - 1
        raise CanopyError(f"stages {args.stage} to {args.stop_stage}: give 0 to {last}, in order")
    stages = range(args.stage, args.stop_stage + 1)
    folds, cycles = folds_and_cycles(config, args.folds, stages)
    return RunRequest(
        recipe=args.recipe,
        conf=conf,
        tag=args.tag or conf.stem,
        datadir=args.datadir or Path("data") / args.recipe,
        dumpdir=args.dumpdir or Path("dump") / args.recipe,
        expdir=args.expdir or Path("exp") / args.recipe,
        device=args.device,
        overrides=list(args.overrides),
        first=args.stage,
        last=args.stop_stage,
        folds=folds,
        all_folds=len(folds) == config.split.n_folds,
        cycles=cycles,
        seeds=list(dict.fromkeys(numbers_of("--seeds", args.seeds or ""))) or None,
        cache=args.cache,
    )


def conf_files(recipe: str | None, given: Path | None) -> list[Path]:
    """The cluster's settings: the house's, the recipe's, the user's."""
    named = given or os.environ.get("CANOPY_SLURM_CONF")
    own = Path("conf") / recipe / "slurm.conf" if recipe else None
    files = [Path("conf/slurm.conf")]
    files += [own] if own is not None and own.is_file() else []
    return files + ([Path(named)] if named else [])


def read_cluster_conf(recipe: str | None, given: Path | None) -> ClusterConf:
    """Resources of all stages."""
    return read_conf(conf_files(recipe, given))


def run_context(request: RunRequest, conf: ClusterConf, shared: dict[str, str]) -> dict[str, Any]:
    """What tasks need to know of a run, as plain values."""
    config = load_config(request.conf, request.overrides)
    context = {
        "title": request.tag,
        "venv": os.environ.get("VENV") or os.path.abspath(".venv"),
        "shared": shared,
        "conf": fingerprint(dump_config(config)),
        "conf_file": str(request.conf),
        "overrides": request.overrides,
        "datadir": str(request.datadir),
        "dumpdir": str(request.dumpdir),
        "max_requeues": {name: conf.of(name).own["max-requeues"] for name in conf.stages},
    }
    return {**context, "dump": dump_folder(context)}


def dump_folder(context: dict[str, Any]) -> str:
    """Folder of the features; "" before the tables are there."""
    tables = Path(context.get("dumpdir", "")) / "tables"
    if not context.get("conf_file") or not (tables / "recordings.csv").is_file():
        return ""
    config = resolve(Path(context["conf_file"]), context["overrides"], tables).config
    return str(Path(context["dumpdir"]) / front_end_of(config).id)


def stages_of(jobs: list[Job]) -> list[str]:
    """Stages whose resources jobs ask for."""
    return list(dict.fromkeys(job.stage for job in jobs))
