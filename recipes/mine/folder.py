"""The recordings of a folder: their names, headers, subsets and groups."""

import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

import pandas as pd

from local.data.annotations.shared import file_stem, find_column, read_delimited, read_text
from local.features.audio import SOUND_SUFFIXES, probe
from local.io.errors import CanopyError
from local.io.limits import MAX_NAME_CHARACTERS, id_fault
from recipes.mine.settings import PrepareConfig


def find_files(folder: Path, patterns: Sequence[str], suffixes: Sequence[str] = ()) -> list[Path]:
    """Files below `folder` that any of the patterns matches, sorted, without hidden ones."""
    if not folder.is_dir():
        raise CanopyError(f"{folder}: no such folder; check --datadir and prepare.annotation_dir")
    found = {
        path
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(folder).parts)
    }
    return sorted(path for path in found if not suffixes or path.suffix.lower() in suffixes)


def list_recordings(datadir: Path, settings: PrepareConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Readable recordings with id, path and header; and those that cannot be read, with reasons."""
    paths = find_files(datadir, settings.recordings, SOUND_SUFFIXES)
    if not paths:
        raise CanopyError(
            f"{datadir}: no recordings ({', '.join(SOUND_SUFFIXES)}) match prepare.recordings "
            f"{list(settings.recordings)}; check --datadir"
        )
    relative = [path.relative_to(datadir).as_posix() for path in paths]
    rows, invalid = [], []
    for name, recording_id, path in zip(relative, make_ids(relative), paths, strict=True):
        try:
            info = probe(path)
        except CanopyError as error:
            invalid.append((recording_id, name, str(error)))
            continue
        rows.append((recording_id, name, info.duration, info.sample_rate, info.channels))
    if len(invalid) > settings.max_invalid_share * len(paths):
        raise CanopyError(
            f"{len(invalid)} of {len(paths)} recordings cannot be read, the first: "
            f"{invalid[0][2]}; or raise prepare.max_invalid_share to leave such ones out"
        )
    columns = ["recording_id", "path", "duration", "sample_rate", "channels"]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(
        invalid, columns=["recording_id", "path", "reason"]
    )


def make_ids(paths: Sequence[str]) -> list[str]:
    """An id for each relative path: the file's name, with its folders where names repeat."""
    stems = [file_stem(path) for path in paths]
    counts = pd.Series([stem.casefold() for stem in stems]).value_counts()
    long = [PurePosixPath(path).with_suffix("").as_posix() for path in paths]
    ids = [
        _safe(name if counts[stem.casefold()] > 1 else stem)
        for name, stem in zip(long, stems, strict=True)
    ]
    first: dict[str, str] = {}
    for name, path in zip(ids, paths, strict=True):
        other = first.setdefault(name.casefold(), path)
        if other != path:
            raise CanopyError(
                f"{other} and {path} would both be recording {name!r}; rename or remove one"
            )
    return ids


def _safe(name: str) -> str:
    text = re.sub(r"[^A-Za-z0-9_.+@=-]", "_", name)[-MAX_NAME_CHARACTERS:]
    return f"_{text[1:]}" if id_fault(text) else text


# --------------------------------------------------------------------------------------- subsets


def assign_subsets(
    recordings: pd.DataFrame, annotated: Iterable[str], datadir: Path, settings: PrepareConfig
) -> pd.Series:
    """Subset of every recording: what a pattern says, or else by whether there are annotations."""
    known = recordings["recording_id"].isin(set(annotated))
    subset = pd.Series("train", index=recordings.index).where(known, settings.without_annotations)
    by: dict[int, str] = {}
    for name in ("train", "test", "unlabelled"):
        for pattern in _patterns(getattr(settings, name), datadir):
            rows = [i for i, row in recordings.iterrows() if _matches(row, pattern)]
            if not rows:
                raise CanopyError(
                    f"prepare.{name}: {pattern!r} matches no recording; give names or patterns of "
                    f"paths below the data folder, such as {recordings['path'].iloc[0]!r}"
                )
            for i in rows:
                if by.setdefault(i, name) != name:
                    raise CanopyError(
                        f"{recordings['path'][i]} is in prepare.{by[i]} and in prepare.{name}; "
                        "name it in one of them"
                    )
                subset[i] = name
    return subset


def _patterns(entries: Sequence[str], datadir: Path) -> list[str]:
    patterns: list[str] = []
    for entry in entries:
        lines = read_text(datadir / entry[1:]).splitlines() if entry[0] == "@" else [entry]
        patterns += [line.strip() for line in lines if line.strip()]
    return patterns


def _matches(row: pd.Series, pattern: str) -> bool:
    names = (row["path"], row["recording_id"], PurePosixPath(row["path"]).name)
    return any(fnmatchcase(name, pattern) for name in names)


# ---------------------------------------------------------------------------------------- groups


def assign_groups(
    recordings: pd.DataFrame, rows: pd.DataFrame, datadir: Path, settings: PrepareConfig
) -> pd.Series:
    """Group of every recording; `rows` are the annotations, with their further columns."""
    group = settings.group
    if group.by == "folder":
        return recordings["path"].map(lambda path: PurePosixPath(path).parent.as_posix())
    if group.by == "pattern":
        return recordings["path"].map(lambda path: _searched(str(group.pattern), path))
    if group.by == "csv":
        return _from_csv(recordings, datadir / str(group.csv))
    if group.by == "column":
        return _from_column(recordings, rows, str(group.column))
    return recordings["recording_id"]


def _searched(pattern: str, path: str) -> str:
    try:
        found = re.search(pattern, path)
    except re.error as error:
        raise CanopyError(
            f"prepare.group.pattern {pattern!r} is no regular expression ({error}); mend it"
        ) from None
    text = (found[1] if found.re.groups else found[0]) if found else None
    if not text:
        raise CanopyError(
            f"prepare.group.pattern {pattern!r} finds nothing in {path!r}; make it fit every path, "
            "or choose another prepare.group.by"
        )
    return text


def _from_csv(recordings: pd.DataFrame, path: Path) -> pd.Series:
    table = read_delimited(path, read_text(path), ",")
    name = find_column(table, ("recording_id", "recording", "file", "filename", "path"))
    group = find_column(table, ("group", "site", "session"))
    if name is None or group is None:
        raise CanopyError(
            f"{path}: expected columns recording and group, found {', '.join(table.columns)}"
        )
    groups: dict[str, str] = {}
    for line, row in table.iterrows():
        if groups.setdefault(row[name].strip(), row[group].strip()) != row[group].strip():
            raise CanopyError(
                f"{path} line {line}: {row[name]} has a second group; keep one of its rows"
            )
    found = []
    for _, row in recordings.iterrows():
        file = PurePosixPath(row["path"]).name
        keys = (row["recording_id"], row["path"], file, file_stem(file))
        found.append(next((groups[key] for key in keys if groups.get(key)), None))
        if found[-1] is None:
            raise CanopyError(f"{path}: no group for recording {row['path']}; add a row for it")
    return pd.Series(found, index=recordings.index, dtype=object)


def _from_column(recordings: pd.DataFrame, rows: pd.DataFrame, column: str) -> pd.Series:
    """What a column of the annotations says; a recording without rows is a group of its own."""
    if column not in rows.columns:
        raise CanopyError(
            f"prepare.group.column is {column!r}, but the annotations have no such column; found "
            f"{', '.join(map(str, rows.columns))}"
        )
    told = rows[rows[column].fillna("").str.strip() != ""].groupby("recording_id")[column].unique()
    several = told[told.map(len) > 1]
    if len(several):
        raise CanopyError(
            f"recording {several.index[0]} has the groups {' and '.join(several.iloc[0][:2])} in "
            f"column {column}; give it one"
        )
    ids = recordings["recording_id"]
    return ids.map(told.map(lambda values: values[0].strip())).fillna(ids)


def listing(paths: Sequence[Path], datadir: Path) -> list[tuple[str, int, int]]:
    """What tells whether the recordings changed: path, size and time of change."""
    stats = [(path.relative_to(datadir).as_posix(), os.stat(path)) for path in paths]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
