"""The three tables of a folder of recordings and their annotations."""

import logging
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from local.config import Config
from local.data.tables import EVENT_COLUMNS, Tables, check_events, write_tables
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError
from local.io.files import write_csv
from local.io.limits import spreadsheet_safe
from recipes.mine.folder import (
    assign_groups,
    assign_subsets,
    find_files,
    list_recordings,
)
from recipes.mine.labels import Matcher, choose_classes, read_folder, settle
from recipes.mine.settings import PrepareConfig

log = logging.getLogger("canopy")


def annotation_files(datadir: Path, settings: PrepareConfig) -> list[Path]:
    """Annotation files of the folder, without lists that the settings name."""
    folder = settings.annotation_folder(datadir)
    own = {path.resolve() for path in settings.own_files(datadir)}
    found = find_files(folder, settings.annotations)
    files = [path for path in found if path.resolve() not in own]
    if not files:
        raise CanopyError(
            f"{folder}: no annotations match prepare.annotations {list(settings.annotations)}; "
            "name their folder in prepare.annotation_dir or their names there"
        )
    return files


def convert(
    datadir: Path,
    out: Path,
    settings: PrepareConfig,
    config: Config,
    settled: Callable[[Tables], Config],
) -> None:
    """Write the tables, and beside them invalid.csv and what is known of test recordings.

    `settled` gives the configuration with what the tables suggest.
    """
    recordings, invalid = list_recordings(datadir, settings)
    both = pd.concat([recordings, invalid])
    matcher = Matcher(dict(zip(both["path"], both["recording_id"], strict=True)))
    files = annotation_files(datadir, settings)
    rows, annotated = read_folder(files, settings.annotation_folder(datadir), matcher, settings)
    rows = rows[~rows["recording_id"].isin(invalid["recording_id"])]
    recordings["subset"] = assign_subsets(recordings, annotated, datadir, settings)
    recordings["group"] = assign_groups(recordings, rows, datadir, settings)
    by_id = recordings.set_index("recording_id")
    rows = settle(rows, by_id["duration"], settings)
    train = rows["recording_id"].map(by_id["subset"]) == "train"
    labels = choose_classes(rows[train], by_id["group"], settings, config.split.n_folds)
    rows = rows[rows["label"].isin(labels)]
    check_events(rows, by_id["duration"], labels, out / "annotations")
    events = rows[list(EVENT_COLUMNS)]
    test = by_id.index[by_id["subset"] == "test"]
    write_known_of_test(out, events, [name for name in test if name in annotated], labels)
    write_csv(out / "invalid.csv", spreadsheet_safe(invalid))
    events = events[~events["recording_id"].isin(test)].reset_index(drop=True)
    tables = Tables(recordings, events, classes_of(events, labels))
    check_sound(recordings, rows, settled(tables))
    write_tables(out, tables, datadir)
    tell(tables)


def check_sound(recordings: pd.DataFrame, rows: pd.DataFrame, config: Config) -> None:
    """What the files and the boxes say against the front end."""
    slow = recordings[recordings["sample_rate"] < config.audio.sample_rate]
    if len(slow):
        lowest = slow.loc[slow["sample_rate"].idxmin()]
        log.warning(
            "%d of %d recordings have a sample rate below audio.sample_rate %d (the lowest: %s, %d)"
            ": nothing of them lies above %d Hz, which tells their recorder; lower "
            "audio.sample_rate and features.f_max_hz unless all classes show below",
            *(len(slow), len(recordings), config.audio.sample_rate),
            *(lowest["path"], lowest["sample_rate"], lowest["sample_rate"] // 2),
        )
    edges = front_end_of(config).band_edges_hz()
    if edges is None:
        return
    f_max = float(edges.max())
    for label, low in rows.groupby("label")["low_freq"].min().items():
        if low >= f_max:
            raise CanopyError(
                f"all boxes of {label!r} lie above {low:g} Hz, but features end at {f_max:g} Hz; "
                "raise features.f_max_hz, and audio.sample_rate to at least twice of it"
            )


def write_known_of_test(
    out: Path, events: pd.DataFrame, names: list[str], labels: list[str]
) -> None:
    """What the annotations say of test recordings: for scoring, not for any stage before."""
    paths = [out / "test_events.csv", out / "test_truth.csv"]
    if not names:
        for path in paths:
            path.unlink(missing_ok=True)
        return
    known = events[events["recording_id"].isin(names)]
    write_csv(paths[0], known)
    calls = known[known["polarity"] > 0]
    truth = pd.crosstab(calls["recording_id"], calls["label"]).clip(upper=1)
    truth = truth.reindex(index=names, columns=labels, fill_value=0)
    write_csv(paths[1], truth.rename_axis("recording_id").rename_axis(columns=None).reset_index())


def classes_of(events: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Classes in output order; the band is that of all their boxes, unknown without any."""
    bands = events.groupby("label").agg(
        low_freq=("low_freq", "min"), high_freq=("high_freq", "max")
    )
    return pd.DataFrame({"label": labels, "name": labels}).join(bands, on="label")


def tell(tables: Tables) -> None:
    """Say what was found, so that a wrong column or pattern shows before hours of training."""
    recordings, events = tables.recordings, tables.events
    for subset, part in recordings.groupby("subset"):
        hours = part["duration"].sum() / 3600
        log.info(
            "%s: %d recordings, %.2f h, %d groups",
            *(subset, len(part), hours),
            part["group"].nunique(),
        )
    group = events["recording_id"].map(recordings.set_index("recording_id")["group"])
    for label in tables.labels:
        own = events["label"] == label
        absent = int((own & (events["polarity"] < 0)).sum())
        words = f", {absent} spans without it" if absent else ""
        log.info(
            "class %s: %d calls in %d groups%s",
            *(label, own.sum() - absent, group[own].nunique()),
            words,
        )
