"""FileInfo.csv and Annotations.csv as they were published, and what is wrong with their rows.

FileInfo.csv is no proper CSV: its header is damaged and its rows have as many pairs of voice
boundaries as the file has voices. It is read line by line: six fields, then whole numbers in pairs.
A sample counts from 0; a voice is [start, end).
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pandas as pd

from local.io.errors import CanopyError

FILE_INFO, ANNOTATIONS = "FileInfo.csv", "Annotations.csv"
ANNOTATION_COLUMNS = (
    "FileID",
    "Emitter",
    "Addressee",
    "Context",
    "Emitter pre-vocalization action",
    "Addressee pre-vocalization action",
    "Emitter post-vocalization action",
    "Addressee post-vocalization action",
    "Start sample",
    "End sample",
)
FAULT_COLUMNS = ("table", "line", "file_id", "fault", "decision")
LEFT_OUT, ROW_LEFT_OUT = "file left out", "row left out"
TWICE = "FileID twice"
JOINED = "one event where their label is one"


@dataclass(frozen=True)
class BatFile:
    """One row of FileInfo.csv; `voices` are pairs of samples in order of their starts."""

    file_id: int
    treatment: str
    name: str
    folder: str
    time: str
    voices: list[tuple[int, int]]
    line: int

    @property
    def session(self) -> str:
        """Day of the recording and treatment, what files of one sitting share."""
        digits = re.match(r"(\d{6})\d{6}", self.name)
        day = digits[1] if digits else re.split(r"[ T]", self.time.strip())[0]
        return f"{day or 'unknown'}_{self.treatment or 'unknown'}"


@dataclass
class Faults:
    """Rows that are not as they should be, and what was decided."""

    rows: list[tuple[str, int, int, str, str]] = field(default_factory=list)

    def add(self, table: str, line: int, file_id: int, fault: str, decision: str) -> None:
        """Note one."""
        self.rows.append((table, line, file_id, fault, decision))

    def frame(self) -> pd.DataFrame:
        """All of them as a table."""
        return pd.DataFrame(self.rows, columns=list(FAULT_COLUMNS))


def read_file_info(path: Path, faults: Faults) -> list[BatFile]:
    """Rows that can be used.

    Left out, with a fault noted: fewer than six fields, a field that should be a whole number, a
    FileID that was there before, an odd number of boundaries, an end that is not after its start, a
    start below 0, no voices at all. In none of these is it known when the file is silent; where a
    FileID stands twice, the first row holds. Noted and kept: voices that overlap.
    """
    files: dict[int, BatFile] = {}
    for line, cells in _lines(path):
        while cells and not cells[-1].strip():
            cells.pop()
        if not cells:
            continue
        file_id = _whole(cells[0])
        if file_id is None and line == 1:
            continue  # The header.
        bounds = [_whole(cell) for cell in cells[6:]]
        fault = _file_fault(cells, file_id, bounds, files)
        if fault:
            decision = ROW_LEFT_OUT if fault == TWICE else LEFT_OUT
            faults.add(FILE_INFO, line, -1 if file_id is None else file_id, fault, decision)
            continue
        numbers = [int(bound) for bound in bounds if bound is not None]
        voices = sorted(zip(numbers[::2], numbers[1::2], strict=True))
        if any(start < end for (_, end), (start, _) in pairwise(voices)):
            faults.add(FILE_INFO, line, int(file_id or 0), "voices overlap", JOINED)
        _, treatment, name, folder, _, time = (cell.strip() for cell in cells[:6])
        files[int(file_id or 0)] = BatFile(
            int(file_id or 0), treatment, name, folder, time, voices, line
        )
    if not files:
        raise CanopyError(f"{path}: no row can be used; see the faults listed, or get it again")
    return list(files.values())


def _file_fault(
    cells: list[str], file_id: int | None, bounds: list[int | None], files: dict[int, BatFile]
) -> str:
    """What keeps a row from being used; "" for nothing."""
    if file_id is None or None in bounds:
        return "not a whole number"
    if len(cells) < 6:
        return "fewer than six fields"
    if file_id in files:
        return TWICE
    if not bounds:
        return "no voices"
    if len(bounds) % 2:
        return "odd number of boundaries"
    pairs = list(zip(bounds[::2], bounds[1::2], strict=True))
    if any(end <= start for start, end in pairs):
        return "end not after start"
    return "starts before the file" if any(start < 0 for start, _ in pairs) else ""


def read_bat_annotations(path: Path, known: set[int], faults: Faults) -> pd.DataFrame:
    """Rows about known files: file_id, emitter, addressee, context, the four actions, start, end.

    Left out, with a fault noted: not ten whole numbers, a FileID that FileInfo.csv has no usable
    row of, an end that is not after its start.
    """
    rows = []
    for line, cells in _lines(path):
        numbers = [_whole(cell) for cell in cells]
        if line == 1 and numbers[:1] == [None]:
            continue
        whole = [number for number in numbers if number is not None]
        file_id = whole[0] if whole and numbers[0] is not None else -1
        if len(whole) != len(cells) or len(cells) != len(ANNOTATION_COLUMNS):
            fault = "not ten whole numbers"
        elif file_id not in known:
            fault = "FileID without a usable file"
        else:
            fault = "end not after start" if whole[9] <= whole[8] else ""
        if fault:
            faults.add(ANNOTATIONS, line, file_id, fault, ROW_LEFT_OUT)
            continue
        rows.append(whole)
    columns = ["file_id", "emitter", "addressee", "context"]
    columns += ["emitter_pre", "addressee_pre", "emitter_post", "addressee_post", "start", "end"]
    return pd.DataFrame(rows, columns=columns, dtype="int64")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file)
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such file; complete the data or check --datadir") from None
    except (OSError, csv.Error) as error:
        raise CanopyError(f"{path}: cannot be read as lines of cells ({error})") from None


def _whole(cell: str) -> int | None:
    """A whole number, also where a spreadsheet wrote it as 12.0."""
    match = re.fullmatch(r"\s*([+-]?\d{1,15})(?:\.0*)?\s*", cell)
    return int(match[1]) if match else None
