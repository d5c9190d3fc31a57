"""Annotation files of one format -> a folder of another."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from local.data.annotations.format_names import SUFFIXES
from local.data.annotations.formats import read_annotations, write_annotations
from local.data.annotations.shared import ReadOptions, table_stem
from local.data.tables import EVENT_COLUMNS
from local.io.errors import CanopyError
from local.jobs.locks import lock_folder


@dataclass(frozen=True)
class Conversion:
    """What was read and written; left_behind: columns that the target format has no place for."""

    n_files: int
    n_rows: int
    written: list[Path]
    left_behind: list[str]


def convert(
    inputs: list[Path],
    source: str,
    options: ReadOptions,
    out: Path,
    target: str,
    annotation_column: str,
    force: bool,
) -> Conversion:
    """Read files and folders, then write all that they say to the folder `out`.

    Parameters
    ----------
    source, target : of `format_names.FORMATS`; the source may be `auto`.
    annotation_column : of Raven's tables, the column that labels are written to.
    force : write over files that are there.
    """
    files = find_inputs(inputs, source)
    frames = [read_annotations(path, source, options) for path in files]
    # An empty table says that nothing was found in its recording: it goes on as an empty table.
    names = [
        name
        for path, frame in zip(files, frames, strict=True)
        for name in (frame["recording_id"].unique() if len(frame) else [table_stem(path)])
    ]
    frame = pd.concat(frames, ignore_index=True)
    if out.exists() and not out.is_dir():
        raise CanopyError(f"--out {out} is a file; give a folder")
    with lock_folder(out, "this folder", keep=False):
        written = write_annotations(
            out,
            frame,
            target,
            recordings=names,
            annotation_column=annotation_column,
            force=force,
        )
    return Conversion(len(files), len(frame), written, left_behind(frame, target))


def find_inputs(paths: list[Path], format: str) -> list[Path]:
    """The files, and those in the folders that may be of the format."""
    found: list[Path] = []
    for path in paths:
        inside = [file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES[format]]
        found += inside if path.is_dir() else [path]
        if path.is_dir() and not inside:
            raise CanopyError(f"{path}: no files ending in {', '.join(SUFFIXES[format])}")
    return found


def left_behind(frame: pd.DataFrame, target: str) -> list[str]:
    """Columns that say something and have no place in the target format."""
    held = {
        "audacity": set(EVENT_COLUMNS) - {"weight"},
        "rainforest": set(frame.columns) - {"weight"},
    }.get(target, set(frame.columns))
    held |= {"source", "Selection", "View", "Channel", "path", "sequence_start"}
    usual = {"weight": 1.0}
    return [
        str(name)
        for name in frame.columns
        if name not in held and not frame[name].fillna("").isin(["", usual.get(name, "")]).all()
    ]
