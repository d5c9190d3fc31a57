"""The three tables of a folder in the layout of the rainforest competition."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from local.data.annotations.rainforest import read_rainforest
from local.data.tables import Tables, check_events, fail_at, read_table, write_tables
from local.features.audio import SOUND_SUFFIXES, probe
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.io.limits import spreadsheet_safe


def convert(
    datadir: Path,
    out: Path,
    *,
    song_types: bool = False,
    groups: Path | None = None,
    max_invalid_share: float = 0.0,
) -> None:
    """Write the tables of a folder in the competition's layout to `out`.

    Beside the three tables go `sample_submission.csv`, `submission_columns.csv` (label -> column)
    and `invalid.csv` (recordings whose header could not be read, with the reason).
    """
    sample, columns = _read_sample(datadir / "sample_submission.csv")
    events = _read_events(datadir)
    recordings, invalid = _list_recordings(datadir)
    if len(invalid) > max_invalid_share * (len(recordings) + len(invalid)):
        raise CanopyError(
            f"{len(invalid)} of {len(recordings) + len(invalid)} recordings cannot be read, the "
            f"first: {invalid['reason'].iloc[0]}; mend them or raise prepare.max_invalid_share"
        )
    _check_unique(pd.concat([recordings, invalid]))
    recordings["group"] = _groups(recordings, groups)
    known = set(recordings["recording_id"]) | set(invalid["recording_id"])
    absent = [name for name in sample["recording_id"] if name not in known]
    if absent:
        raise CanopyError(
            f"{datadir / 'sample_submission.csv'}: recording {absent[0]!r} ({len(absent)} in all) "
            f"has no file in {datadir / 'test'}; complete the download"
        )
    durations = recordings.set_index("recording_id")["duration"]
    for name, frame in events.items():
        frame = frame[~frame["recording_id"].isin(invalid["recording_id"])]
        check_events(frame, durations, columns, datadir / name)
        events[name] = frame
    rows = pd.concat(events.values(), ignore_index=True)
    column_of = {label: label for label in columns}
    if song_types:
        rows, column_of = _split_song_types(rows, columns)
    tables = Tables(recordings, rows, _classes(rows, list(column_of)))
    write_csv(out / "sample_submission.csv", sample)
    mapping = pd.DataFrame({"label": list(column_of), "column": list(column_of.values())})
    write_csv(out / "submission_columns.csv", mapping)
    write_csv(out / "invalid.csv", spreadsheet_safe(invalid))
    write_tables(out, tables, datadir)


def _read_sample(path: Path) -> tuple[pd.DataFrame, list[str]]:
    sample = read_table(path, ("recording_id",))
    columns = [column for column in sample.columns if column != "recording_id"]
    if not columns:
        raise CanopyError(f"{path}: no class columns beside recording_id; expected s0, s1, ...")
    fail_at(
        sample["recording_id"].duplicated(),
        path,
        sample,
        lambda row: f"recording_id {row['recording_id']!r} stands a second time; keep one row",
    )
    return sample, columns


def _read_events(datadir: Path) -> dict[str, pd.DataFrame]:
    return {
        "train_tp.csv": read_rainforest(datadir / "train_tp.csv", 1, "tp"),
        "train_fp.csv": read_rainforest(datadir / "train_fp.csv", -1, "fp"),
    }


def _list_recordings(datadir: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every audio file of train/ and test/ with its header; and those without a readable one."""
    rows, invalid = [], []
    for subset, path in tqdm(list(_audio_files(datadir)), desc="headers", disable=None):
        relative = path.relative_to(datadir).as_posix()
        try:
            info = probe(path)
        except CanopyError as error:
            invalid.append((path.stem, relative, subset, str(error)))
            continue
        rows.append((path.stem, relative, subset, info.duration, info.sample_rate, info.channels))
    names = ["recording_id", "path", "subset", "duration", "sample_rate", "channels"]
    return (
        pd.DataFrame(rows, columns=names),
        pd.DataFrame(invalid, columns=["recording_id", "path", "subset", "reason"]),
    )


def _check_unique(recordings: pd.DataFrame) -> None:
    twice = recordings[recordings["recording_id"].duplicated(keep=False)]
    if len(twice):
        name = twice["recording_id"].iloc[0]
        first, second = twice.loc[twice["recording_id"] == name, "path"].iloc[:2]
        raise CanopyError(f"{first} and {second} are both recording {name!r}; rename or remove one")


def _audio_files(datadir: Path) -> Iterator[tuple[str, Path]]:
    for subset in ("train", "test"):
        folder = datadir / subset
        if not folder.is_dir():
            raise CanopyError(f"{folder}: no such folder; expected the competition's layout there")
        files = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in SOUND_SUFFIXES and not path.name.startswith(".")
        ]
        if not files:
            raise CanopyError(f"{folder}: no audio files ({', '.join(SOUND_SUFFIXES)})")
        yield from ((subset, path) for path in files)


def _groups(recordings: pd.DataFrame, path: Path | None) -> pd.Series:
    if path is None:
        return recordings["recording_id"]
    table = read_table(path, ("recording_id", "site"))
    table = table[["recording_id", "site"]].drop_duplicates()
    twice = table["recording_id"].duplicated()
    if twice.any():
        raise CanopyError(
            f"{path}: recording {table['recording_id'][twice].iloc[0]!r} stands at two sites; keep "
            "one of its rows"
        )
    sites = table.set_index("recording_id")["site"]
    groups = recordings["recording_id"].map(sites)
    if groups.isna().any():
        absent = recordings["recording_id"][groups.isna()].iloc[0]
        raise CanopyError(f"{path}: no row for recording {absent!r}; give every recording a site")
    return groups


def _split_song_types(
    rows: pd.DataFrame, columns: list[str]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A class for each (species, song type) seen; the first type keeps the species' own label."""
    column_of = {label: label for label in columns}
    first = rows.groupby("label")["songtype_id"].transform("min")
    other = rows["songtype_id"] != first
    rows = rows.copy()
    names = rows["label"] + "_song" + rows["songtype_id"].astype(str)
    added = pd.DataFrame({"label": names, "column": rows["label"]})[other].drop_duplicates()
    rows["label"] = rows["label"].where(~other, names)
    column_of.update(dict(added.sort_values("label").itertuples(index=False)))
    return rows, column_of


def _classes(rows: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Classes in output order; the band is that of all their boxes, unknown without any."""
    bands = rows.groupby("label").agg(low_freq=("low_freq", "min"), high_freq=("high_freq", "max"))
    classes = pd.DataFrame({"label": labels, "name": labels})
    return classes.join(bands, on="label")
