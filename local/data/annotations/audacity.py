"""Audacity label tracks: onset, offset and text, and a row of frequencies after a backslash.

A track belongs to one recording, whose name is that of the file. A label at a point in time has its
onset as its offset.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from local.data.annotations.shared import (
    DEFAULTS,
    ReadOptions,
    cell,
    check_cells,
    check_spans,
    complete,
    make_events,
    parse_number,
    read_text,
    split_lines,
    table_stem,
)
from local.io.errors import CanopyError
from local.io.files import write_text

SOURCE = "audacity"


def read_audacity(path: Path | str, options: ReadOptions = DEFAULTS) -> pd.DataFrame:
    """Labels as an annotation frame; an undefined frequency (-1) is unknown.

    `options.label` is the label of rows without text.
    """
    path = Path(path)
    index: list[int] = []
    rows: list[list[Any]] = []
    for number, line in split_lines(read_text(path, options.encoding)):
        if line.startswith("\\"):
            if not rows or len(rows[-1]) > 3:
                raise CanopyError(
                    f"{path} line {number}: a row of frequencies without a label above it; remove "
                    "it or put its label back"
                )
            rows[-1] += _frequencies(path, number, line)
            continue
        index.append(number)
        rows.append(_label(path, number, line))
    columns = list(zip(*[(*row, math.nan, math.nan)[:5] for row in rows], strict=True))
    onset, offset, label, low, high = columns or ((),) * 5
    return check_spans(
        make_events(
            pd.Index(index, dtype=int),
            recording_id=table_stem(path),
            label=[text if text.strip() else options.label or "" for text in label],
            onset=list(onset),
            offset=list(offset),
            low_freq=list(low),
            high_freq=list(high),
            polarity=options.usual_polarity,
            source=SOURCE,
        ),
        path,
    )


def write_audacity(path: Path | str, frame: pd.DataFrame) -> None:
    """Write the events or detections of one recording as a label track.

    A track holds times, frequencies and text: weight, source and further columns stay behind.

    Raises
    ------
    CanopyError
        Rows of several recordings, rows of polarity -1 (they would read as calls), or labels that
        a track cannot hold.
    """
    path = Path(path)
    frame = complete(frame, SOURCE)
    if frame["recording_id"].nunique() > 1:
        raise CanopyError(
            f"{path}: rows of {frame['recording_id'].nunique()} recordings, but a label track "
            "belongs to one; write a file for each"
        )
    if (frame["polarity"] != 1).any():
        raise CanopyError(
            f"{path}: {(frame['polarity'] != 1).sum()} rows say that a class is absent, which a "
            "label track cannot tell from a call; leave them out, or write Raven tables or csv"
        )
    check_cells(path, frame["label"], "\t\r\n", "an Audacity label track")
    lines = []
    for row in frame.itertuples():
        lines.append(f"{cell(float(row.onset))}\t{cell(float(row.offset))}\t{row.label}")
        band = [float(row.low_freq), float(row.high_freq)]
        if not all(map(math.isnan, band)):
            lines.append("\\\t" + "\t".join("-1" if math.isnan(x) else cell(x) for x in band))
    write_text(path, "".join(line + "\n" for line in lines))


def _label(path: Path, number: int, line: str) -> list:
    """[onset, offset, text]; the old form without an end is a point in time."""
    fields = line.split("\t", 2)
    onset = parse_number(fields[0].strip())
    offset = parse_number(fields[1].strip()) if len(fields) > 1 else None
    if onset is not None and offset is None and len(fields) < 3:
        return [onset, onset, fields[1] if len(fields) > 1 else ""]
    if onset is None or offset is None:
        raise CanopyError(
            f"{path} line {number}: {line[:60]!r} is no Audacity label; expected onset, offset and "
            "text with tabs between them"
        )
    return [onset, offset, fields[2] if len(fields) > 2 else ""]


def _frequencies(path: Path, number: int, line: str) -> list[float]:
    fields = line.split("\t")[1:]
    values = [parse_number(field.strip()) for field in fields]
    numbers = [value for value in values if value is not None]
    if len(fields) != 2 or len(numbers) != 2:
        raise CanopyError(
            f"{path} line {number}: {line[:60]!r} is no row of frequencies; expected a backslash "
            "and two numbers with tabs between them"
        )
    return [math.nan if value < 0 else value for value in numbers]
