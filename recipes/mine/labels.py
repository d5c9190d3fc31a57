"""The annotations of a folder: whose they are, and which of them become events of which classes."""

import difflib
import logging
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from local.data.annotations.formats import guess_format, read_annotations
from local.data.annotations.shared import file_stem, table_stem
from local.io.errors import CanopyError
from local.io.limits import label_fault
from recipes.mine.settings import PrepareConfig

log = logging.getLogger("canopy")


# -------------------------------------------------------------------------------------- matching


class Matcher:
    """Finds the recording that a table or a row of it speaks of."""

    def __init__(self, paths: dict[str, str]) -> None:
        """`paths`: relative path of every recording -> its id."""
        self.paths = paths
        self.by_name: dict[str, list[str]] = {}
        for path in paths:
            for key in {PurePosixPath(path).name, file_stem(path), paths[path]}:
                self.by_name.setdefault(key.casefold(), []).append(path)

    def of_sound(self, path: str) -> str | None:
        """Id by a sound file's path or name, as a program on any system wrote it.

        The more of the path's end agrees, the better; None where nothing or several fit as well.
        """
        parts = [part for part in re.split(r"[\\/]+", path.casefold()) if part]
        while parts:
            tail = "/".join(parts)
            found = [own for own in self.paths if f"/{own.casefold()}".endswith(f"/{tail}")]
            if len(found) == 1:
                return self.paths[found[0]]
            parts = parts[1:]
        return self.of_name(file_stem(path), "")

    def of_name(self, name: str, folder: str) -> str | None:
        """Id by the name of a table in `folder`, which may go on after the recording's name.

        Recordings beside the table go before others of the same name.
        """
        folded = name.casefold()
        keys = [folded] if folded in self.by_name else self._beginnings(folded)
        found = list(dict.fromkeys(path for key in keys for path in self.by_name[key]))
        near = [path for path in found if PurePosixPath(path).parent.as_posix() == (folder or ".")]
        fit = near or found
        return self.paths[fit[0]] if len(fit) == 1 else None

    def _beginnings(self, name: str) -> list[str]:
        """The longest known name that `name` goes on from, after a mark such as _ or a dot."""
        fit = [key for key in self.by_name if re.match(rf"{re.escape(key)}[ ._-]", name)]
        return [max(fit, key=len)] if fit else []

    def nearest(self, name: str) -> str:
        """The recording whose name is most like `name`, to be named in an error."""
        names = [PurePosixPath(path).name for path in self.paths]
        return (difflib.get_close_matches(name, names, 1, 0.0) or names)[0]


def read_folder(
    files: list[Path], folder: Path, matcher: Matcher, settings: PrepareConfig
) -> tuple[pd.DataFrame, set[str]]:
    """All annotations with the ids of our recordings, and the ids that there is a table of.

    Further columns are kept. What belongs to no recording is refused or left out, as set.
    """
    frames, annotated, strangers = [], set(), []
    for file in files:
        frame = _read(file, folder, settings)
        ids = _owners(frame, file, folder, matcher, settings, strangers)
        frame["recording_id"] = pd.Series(ids[: len(frame)], dtype=object)
        frame = _continued(frame, matcher)
        annotated |= set(ids) | set(frame.get("next_id", ()))
        frames.append(frame)
    if strangers and settings.unmatched == "refuse":
        file, name = strangers[0]
        raise CanopyError(
            f"{file}: no recording, or more than one, is called {name!r} ({len(strangers)} such "
            f"names; the nearest recording is {matcher.nearest(name)}); rename it, set "
            "prepare.match, or set prepare.unmatched to ignore"
        )
    if strangers:
        log.warning(
            "%d names of no recording left out, the first: %s", len(strangers), strangers[0]
        )
    rows = pd.concat(frames, ignore_index=True)
    return rows[rows["recording_id"].notna()].reset_index(drop=True), {
        name for name in annotated if isinstance(name, str)
    }


def _read(file: Path, folder: Path, settings: PrepareConfig) -> pd.DataFrame:
    options = settings.read_options(file.relative_to(folder).as_posix())
    try:
        return read_annotations(file, settings.format, options)
    except CanopyError as error:
        # Notes and the like lie in the same folder and have the same endings.
        if settings.format == "auto" and guess_format(file, settings.encoding) == "plain":
            raise CanopyError(
                f"{error}; if this is no table of annotations, name those in prepare.annotations"
            ) from None
        raise


def _owners(
    frame: pd.DataFrame,
    file: Path,
    folder: Path,
    matcher: Matcher,
    settings: PrepareConfig,
    strangers: list[tuple[Path, str]],
) -> list[str | None]:
    """Id of each row's recording; of an empty table, that of the table's name."""
    told = frame["path"] if "path" in frame else pd.Series("", index=frame.index)
    keys = list(zip(told.fillna(""), frame["recording_id"], strict=True)) or [
        ("", table_stem(file))
    ]
    beside = file.relative_to(folder).parent.as_posix() if settings.annotation_dir is None else ""
    known: dict[tuple[str, str], str | None] = {}
    for key in dict.fromkeys(keys):
        path, name = key
        if not path and settings.match is not None:
            name = _substituted(name, settings)
        known[key] = matcher.of_sound(path) if path else matcher.of_name(name, beside)
        if known[key] is None:
            strangers.append((file, path or name))
    return [known[key] for key in keys]


def _substituted(name: str, settings: PrepareConfig) -> str:
    try:
        return re.sub(settings.match.pattern, settings.match.to, name)
    except re.error as error:
        raise CanopyError(f"prepare.match is no substitution ({error}); mend it") from None


def _continued(frame: pd.DataFrame, matcher: Matcher) -> pd.DataFrame:
    """`next_id`: the recording that a selection over the end of its file ends in."""
    if "End File" in frame.columns:
        names = {name: matcher.of_sound(name) for name in frame["End File"].unique() if name}
        frame["next_id"] = frame["End File"].map(names)
    return frame


# ---------------------------------------------------------------------------------------- events


def settle(rows: pd.DataFrame, durations: pd.Series, settings: PrepareConfig) -> pd.DataFrame:
    """Rows with labels and spans as `events` want them; those of negatives have polarity -1."""
    rows = rows.assign(label=rows["label"].replace(settings.rename))
    empty = rows["label"] == ""
    if empty.any() and settings.empty_label == "refuse":
        row = rows[empty].iloc[0]
        raise CanopyError(
            f"recording {row['recording_id']} at {row['onset']:.3f} s: a box without a label "
            f"({empty.sum()} in all); label it, or set prepare.empty_label to drop"
        )
    if empty.any():
        log.warning("%d boxes without a label left out", empty.sum())
    rows = rows[~empty & ~rows["label"].isin(settings.ignore)].copy()
    denies = rows["label"].isin(settings.negatives)
    rows.loc[denies, "polarity"] = -1
    rows["label"] = rows["label"].replace(settings.negatives)
    flat = ~(rows["low_freq"] < rows["high_freq"])
    rows.loc[
        flat & rows[["low_freq", "high_freq"]].notna().all(axis=1), ["low_freq", "high_freq"]
    ] = float("nan")
    return _without_points(_split_at_ends(rows, durations), durations, settings)


def _split_at_ends(rows: pd.DataFrame, durations: pd.Series) -> pd.DataFrame:
    """A selection that begins in one file and ends in the next becomes a row in each."""
    if "next_id" not in rows:
        return rows
    over = rows["next_id"].notna() & (rows["next_id"] != rows["recording_id"])
    length = rows["recording_id"].map(durations)
    rest = rows[over].assign(
        recording_id=rows["next_id"], onset=0.0, offset=(rows["offset"] - length)
    )
    rows = rows.assign(offset=rows["offset"].where(~over, length))
    return pd.concat([rows, rest[rest["offset"] > 0]], ignore_index=True)


def _without_points(
    rows: pd.DataFrame, durations: pd.Series, settings: PrepareConfig
) -> pd.DataFrame:
    points = rows["onset"] >= rows["offset"]
    if not points.any():
        return rows
    if settings.point_s is None:
        row = rows[points].iloc[0]
        raise CanopyError(
            f"recording {row['recording_id']} at {row['onset']:.3f} s: a label at a point in time "
            f"({points.sum()} in all); set prepare.point_s to the seconds it stands for"
        )
    half = settings.point_s / 2
    end = rows["recording_id"].map(durations)
    onset = (rows["onset"] - half).clip(lower=0.0)
    offset = (rows["offset"] + half).clip(upper=end)
    return rows.assign(
        onset=rows["onset"].where(~points, onset), offset=rows["offset"].where(~points, offset)
    )


def choose_classes(
    rows: pd.DataFrame, groups: pd.Series, settings: PrepareConfig, n_folds: int
) -> list[str]:
    """Labels of the classes in output order, by the train `rows`; `groups` is by recording_id.

    Raises
    ------
    CanopyError
        None is left, a named one has no rows, or one cannot have a call in every fold.
    """
    calls = rows[rows["polarity"] > 0]
    count = calls["label"].value_counts()
    spread = calls["recording_id"].map(groups).groupby(calls["label"]).nunique()
    labels = list(settings.classes) or sorted(count.index)
    for label in settings.classes:
        if label not in count:
            near = difflib.get_close_matches(label, list(count.index), 1, 0.0)
            raise CanopyError(
                f"prepare.classes: no train recording has a call labelled {label!r}"
                + (f"; did you mean {near[0]!r}?" if near else "; check the column of the labels")
            )
    kept = [
        label
        for label in labels
        if count[label] >= settings.min_count and spread[label] >= settings.min_groups
    ]
    left = [f"{label} ({n})" for label, n in count.items() if label not in kept]
    if left:
        log.warning("labels left out, with their calls: %s", ", ".join(left))
    _check_labels(kept)
    if not kept:
        raise CanopyError(
            f"no class is left of {len(count)} labels in the train recordings; check the column of "
            "the labels, prepare.classes, min_count, min_groups and ignore, and which are train"
        )
    scarce = {label: int(spread[label]) for label in kept if spread[label] < n_folds}
    if scarce:
        words = ", ".join(f"{label} in {n}" for label, n in scarce.items())
        lower = f"lower split.n_folds to {min(scarce.values())}, " * (min(scarce.values()) > 1)
        raise CanopyError(
            f"calls of a class must lie in at least split.n_folds ({n_folds}) groups, found "
            f"{words}; {lower}set prepare.min_groups to {n_folds} to leave such classes out, or "
            "annotate more recordings"
        )
    return kept


def _check_labels(labels: list[str]) -> None:
    """Labels name columns and folders, so some characters are refused, and names but for case."""
    same: dict[str, str] = {}
    for label in labels:
        fault = label_fault(label)
        if not fault and same.setdefault(label.casefold(), label) != label:
            fault = f"differs from {same[label.casefold()]!r} in case alone"
        if fault:
            raise CanopyError(f"label {label!r:.120} {fault}; rename it, as in prepare.rename")
