"""From a command line to a run that holds its folder, with its log open."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from local.config import dump_config
from local.data.tables import check_source
from local.io.errors import CanopyError
from local.io.files import write_text
from local.io.limits import safe_name
from local.jobs.devices import choose_device
from local.jobs.locks import lock_folder
from local.stages.logs import start_log
from local.stages.run import Run
from local.stages.settings import resolve, suggests, write_suggested
from local.stages.stage_options import chosen_cache


@contextmanager
def started(
    args: argparse.Namespace, stage: str, *, shared: bool = False, prepared: bool = True
) -> Iterator[Run]:
    """`start` under the lock of the experiment's folder, which is held inside the block.

    With `shared`, others that share may work in the same experiment, as folds do; `prepared` is
    that of `run_of`.
    """
    run = plan(args, stage, prepared=prepared)
    with lock_folder(run.exp, "this experiment", shared=shared):
        yield _begin(run, stage, prepared=prepared)


def start(args: argparse.Namespace, stage: str) -> Run:
    """Load the configuration, choose the device, open the log file of the stage."""
    return _begin(plan(args, stage), stage)


def plan(args: argparse.Namespace, stage: str, *, prepared: bool = True) -> Run:
    """What will run, before anything is written."""
    run = run_of(args, prepared=prepared)
    # With --force the check of the configuration goes on: the preparation makes the tables anew.
    if not (run.force and stage == "check"):
        check_source(run.tables, run.datadir)
    return replace(run, device=choose_device(run.device))


def run_of(args: argparse.Namespace, *, prepared: bool = True) -> Run:
    """The run of a command line, whose device may be `auto` still.

    prepared : whether its tables, where there are any, are those that it goes by: they may suggest
        settings.
    """
    conf = args.conf or Path("conf") / args.recipe / "default.yaml"
    dumpdir = args.dumpdir or Path("dump") / args.recipe
    resolved = resolve(conf, args.overrides, dumpdir / "tables" if prepared else None)
    if args.nj < 1:
        raise CanopyError(f"--nj is {args.nj}, expected at least 1")
    tag = safe_name(args.tag or conf.stem, "--tag")
    return Run(
        config=resolved.config,
        datadir=args.datadir or Path("data") / args.recipe,
        dumpdir=dumpdir,
        exp=(args.expdir or Path("exp") / args.recipe) / tag,
        device=args.device,
        nj=args.nj,
        force=args.force,
        cache=chosen_cache(getattr(args, "cache", None)),
        recipe=args.recipe,
        suggestions=resolved.suggestions,
    )


def _begin(run: Run, stage: str, *, prepared: bool = True) -> Run:
    start_log(run.exp / "logs" / f"{stage}.log")
    # Before the tables are prepared the settings are not whole: those of before stay until then.
    if prepared or not suggests(run.config):
        write_text(run.exp / "config.yaml", dump_config(run.config))
        write_suggested(run.exp, run.config, run.suggestions)
    return run
