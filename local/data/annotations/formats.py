"""All formats behind one pair of functions: read a file of any of them, write a folder of one."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from local.data.annotations.audacity import read_audacity, write_audacity
from local.data.annotations.format_names import FORMATS
from local.data.annotations.plain import read_plain, write_plain
from local.data.annotations.rainforest import RAINFOREST_COLUMNS, read_rainforest, write_rainforest
from local.data.annotations.raven import BEGIN, read_raven, write_raven
from local.data.annotations.shared import DEFAULTS, ReadOptions, complete, parse_number, read_text
from local.io.errors import CanopyError
from local.io.limits import label_fault



def read_annotations(
    path: Path | str, format: str = "auto", options: ReadOptions = DEFAULTS
) -> pd.DataFrame:
    """Rows of an annotation file: columns of `events`, `path` where it is told, all else as text.

    `format` is one of FORMATS, or `auto`: by what the file's first line looks like.
    """
    path = Path(path)
    if format == "auto":
        format = guess_format(path, options.encoding)
    if format == "raven":
        return read_raven(path, options)
    if format == "audacity":
        return read_audacity(path, options)
    if format == "plain":
        return read_plain(path, options)
    if format == "rainforest":
        if options.polarity is None:
            raise CanopyError(
                f"{path}: a rainforest table does not say whether its rows are confirmed or "
                "rejected; say it as polarity 1 or -1 (bin/convert.py --polarity, or "
                "prepare.rejected)"
            )
        return read_rainforest(path, options.polarity, "tp" if options.polarity > 0 else "fp")
    raise CanopyError(f"format {format!r} is unknown; choose one of {', '.join(FORMATS)}")


def guess_format(path: Path | str, encoding: str | None = None) -> str:
    """Which of FORMATS a file is of, by its first line; an empty file is an Audacity track."""
    first = next((line for line in read_text(path, encoding).splitlines() if line.strip()), "")
    if BEGIN in first:
        return "raven"
    if not first or parse_number(first.split("\t")[0].strip()) is not None:
        return "audacity"
    names = {name.strip().strip('"') for name in first.split(",")}
    return "rainforest" if set(RAINFOREST_COLUMNS) <= names else "plain"


def write_annotations(
    folder: Path | str,
    frame: pd.DataFrame,
    format: str,
    *,
    recordings: Iterable[str] | None = None,
    annotation_column: str = "Annotation",
    force: bool = False,
) -> list[Path]:
    """Write events or detections below `folder` and return the files.

    Raven and Audacity: a file for each recording, and an empty one for each of `recordings` without
    rows. Rainforest: `tp.csv` and `fp.csv`, as far as there are rows. Plain: `events.csv`.

    Raises
    ------
    CanopyError
        A file is there already and `force` is not given, or the format cannot hold the rows.
    """
    folder = Path(folder)
    frame = complete(frame, format)
    parts = _parts(frame, format, list(recordings or ()))
    there = [name for name in parts if (folder / name).exists()]
    if there and not force:
        raise CanopyError(
            f"{folder / there[0]} is there already ({len(there)} such files); give another folder "
            "or --force to write it anew"
        )
    for name, rows in parts.items():
        path = folder / name
        if format == "raven":
            write_raven(path, rows, annotation_column=annotation_column)
        elif format == "audacity":
            write_audacity(path, rows)
        elif format == "rainforest":
            write_rainforest(path, rows)
        else:
            write_plain(path, rows)
    return [folder / name for name in parts]


def _parts(frame: pd.DataFrame, format: str, recordings: list[str]) -> dict[str, pd.DataFrame]:
    """File name -> its rows."""
    if format in ("raven", "audacity"):
        ending = ".Table.1.selections.txt" if format == "raven" else ".txt"
        names = dict.fromkeys([*recordings, *frame["recording_id"]])
        for name in names:
            if fault := label_fault(name):
                raise CanopyError(
                    f"recording {name!r:.120} {fault}, so no file can be named after it"
                )
        return {f"{name}{ending}": frame[frame["recording_id"] == name] for name in names}
    if format == "rainforest":
        polarities = {"tp.csv": 1, "fp.csv": -1}
        parts = {name: frame[frame["polarity"] == sign] for name, sign in polarities.items()}
        return {name: rows for name, rows in parts.items() if len(rows)}
    if format == "plain":
        return {"events.csv": frame}
    raise CanopyError(f"format {format!r} is unknown; choose one of {', '.join(FORMATS)}")
