"""All that is wrong with the tables and the sound of a recipe, before any stage."""

import argparse
import importlib
from pathlib import Path

import pandas as pd

from local.data.tables import (
    CLASS_COLUMNS,
    EVENT_COLUMNS,
    RECORDING_COLUMNS,
    check_source,
    read_table,
)
from local.features.audio import SOUND_SUFFIXES
from local.features.corpus import source_path
from local.io.csv_cells import read_cells
from local.io.errors import CanopyError
from local.io.limits import safe_name
from local.jobs.workers import Killed, run_all
from local.stages.quality.corpus_faults import fold_findings, sound_findings, table_findings
from local.stages.quality.sound_faults import Finding, Survey, survey
from local.stages.run import Run

COLUMNS = {"recordings": RECORDING_COLUMNS, "events": EVENT_COLUMNS, "classes": CLASS_COLUMNS}


def validate(run: Run, args: argparse.Namespace) -> tuple[list[Finding], int]:
    """The faults, and how many recordings were looked at.

    Tables that are not there are made by the recipe's preparation, with the options `args`.
    """
    findings = prepare(run, args)
    tables = {} if findings else read_all(run, findings)
    if set(tables) == set(COLUMNS):
        return findings + held_together(run, tables), len(tables["recordings"])
    paths = sorted(path for path in run.datadir.rglob("*") if is_sound(path))
    findings += [one for found in surveys(run, paths) for one in found.findings]
    return findings, len(paths)


def prepare(run: Run, args: argparse.Namespace) -> list[Finding]:
    """Make the tables where they are not there; what the preparation says when it refuses."""
    if (run.tables / "recordings.csv").exists() and not run.force:
        check_source(run.tables, run.datadir)
        return []
    if not run.datadir.is_dir():
        raise CanopyError(f"{run.datadir}: no such folder; check --datadir")
    try:
        recipe = importlib.import_module(f"recipes.{safe_name(args.recipe, '--recipe')}.prepare")
    except ModuleNotFoundError:
        raise CanopyError(f"--recipe {args.recipe}: there is no such folder of recipes/") from None
    conf = args.conf or Path("conf") / args.recipe / "default.yaml"
    options = ["--datadir", str(run.datadir), "--out", str(run.tables), "--conf", str(conf)]
    options += ["--nj", str(run.nj), *(["--force"] * run.force)]
    for override in args.overrides:
        options += ["--set", override]
    try:
        recipe.main(options)
    except CanopyError as error:
        return [Finding("preparation", "error", args.recipe, str(error))]
    return []


def read_all(run: Run, findings: list[Finding]) -> dict[str, pd.DataFrame]:
    """The tables that can be read; the faults of the others go to `findings`."""
    tables = {}
    for name, columns in COLUMNS.items():
        try:
            tables[name] = read_table(run.tables / f"{name}.csv", columns)
        except CanopyError as error:
            findings.append(Finding("no table", "error", f"{name}.csv", str(error)))
    return tables


def held_together(run: Run, tables: dict[str, pd.DataFrame]) -> list[Finding]:
    """Faults of the tables, of the sound, and of both together."""
    recordings, events = tables["recordings"], tables["events"]
    n_folds = run.config.split.n_folds
    findings = table_findings(recordings, events, tables["classes"], n_folds)
    if (run.exp / "folds.csv").is_file():
        folds, _ = read_cells(run.exp / "folds.csv")
        if {"recording_id", "fold"} <= set(folds.columns):
            findings += fold_findings(recordings, folds)
    paths = [source_path(run.datadir, path) for path in recordings["path"]]
    findings += sound_findings(recordings, events, surveys(run, paths), run.config)
    named = {path.resolve() for path in paths}
    for folder in sorted({path.parent for path in named if path.parent.is_dir()}):
        for path in sorted(folder.iterdir()):
            if is_sound(path) and path.resolve() not in named:
                reason = "lies among the recordings, but no row names it"
                findings.append(Finding("no row", "warning", str(path), reason))
    return findings


def surveys(run: Run, paths: list[Path]) -> list[Survey]:
    """Each file decoded and measured, in the order of `paths`."""
    if run.nj == 1 or len(paths) < 2:
        return list(map(survey, paths))
    found = []
    for path, result in run_all(survey, paths, min(run.nj, len(paths))):
        if isinstance(result, Killed):
            result = Survey(str(path))
            result.add("unreadable", "error", "the process that decoded it was killed; remove it")
        found.append(result)
    return found


def is_sound(path: Path) -> bool:
    """Whether a file's name says that it is sound."""
    return path.suffix.lower() in SOUND_SUFFIXES and not path.name.startswith(".")
