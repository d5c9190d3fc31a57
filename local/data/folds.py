"""Folds: grouped, stratified over label and polarity, written once to a csv.

`assign_folds` gives every recording of every subset a fold such that no group straddles two, since
pseudo labels let recordings of all subsets into training. Only rows of train recordings decide the
stratification. True positives and known negatives are stratified together, so that both can be
scored in each fold.

Method: iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011) over groups, several times;
the attempt with the best balance in counts of event rows is kept, because the method itself sees
only whether a group has a label. Groups without labelled rows then go, largest first, where their
subsets are least represented.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from local.io.csv_cells import read_cells
from local.io.errors import CanopyError
from local.io.files import write_csv

# Attempts at stratification. The spread between attempts matters for few, large groups; one
# attempt over 4,000 groups takes about 0.3 s.
_N_ATTEMPTS = 8


def assign_folds(
    recordings: pd.DataFrame, events: pd.DataFrame, labels: list[str], n_folds: int, seed: int
) -> pd.DataFrame:
    """Give every recording a fold, the same one within a group.

    Parameters
    ----------
    recordings : DataFrame
        Columns `recording_id`, `subset` (train, test, unlabelled), `group`.
    events : DataFrame
        Columns `recording_id`, `label`, `polarity` (1 or -1). Rows of recordings outside the train
        subset are not looked at.
    labels : list of str
        Every class, each with positives in at least `n_folds` train groups.
    n_folds : int
        At least 2.
    seed : int
        Decides between equally good folds. The order of rows in the tables has no influence.

    Returns
    -------
    DataFrame
        `recording_id`, `fold` (0 to n_folds - 1), sorted by `recording_id`, one row a recording.

    Raises
    ------
    CanopyError
        Missing columns, a duplicate recording, a recording without a group, an event of an unknown
        recording or class, fewer train groups than folds, or classes whose positives lie in fewer
        groups than folds (all of them named).
    """
    recordings, events = _checked(recordings, events, labels, n_folds)
    counts = _count_rows(recordings, events, labels)
    _check_enough(recordings, counts, labels, n_folds)
    sizes = pd.crosstab(recordings["group"], recordings["subset"])
    fold_of_group = _spread(sizes, _stratify(counts, n_folds, seed), n_folds, seed)
    folds = recordings[["recording_id"]].assign(
        fold=recordings["group"].map(fold_of_group).astype(np.int64)
    )
    return folds.sort_values("recording_id", ignore_index=True)


def check_enough(
    recordings: pd.DataFrame, events: pd.DataFrame, labels: list[str], n_folds: int
) -> None:
    """Refuse what `assign_folds` would refuse, without assigning."""
    recordings, events = _checked(recordings, events, labels, n_folds)
    _check_enough(recordings, _count_rows(recordings, events, labels), labels, n_folds)


def write_folds(path: Path | str, folds: pd.DataFrame) -> None:
    """Write `recording_id, fold` atomically."""
    write_csv(path, folds[["recording_id", "fold"]])


def read_folds(
    path: Path | str, recordings: pd.DataFrame, n_folds: int | None = None
) -> pd.DataFrame:
    """Read folds and hold them against the recordings they are for.

    Returns `recording_id` (str), `fold` (int64), in the order of `recordings`.

    Raises
    ------
    CanopyError
        A missing or unreadable file, a recording missing, unknown or listed twice, a fold that is
        no whole number of 0 to n_folds - 1 (of 0 upwards for None), a group in two folds.
    """
    mend = "run the split stage again"
    try:
        folds, _ = read_cells(Path(path))
    except FileNotFoundError:
        raise CanopyError(f"{path}: no such file; run the split stage first") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, OSError) as error:
        raise CanopyError(f"{path}: not readable as csv ({error}); {mend}") from None
    _need_columns(folds, ("recording_id", "fold"), str(path))
    if folds["recording_id"].duplicated().any():
        twice = folds.loc[folds["recording_id"].duplicated(), "recording_id"].iloc[0]
        raise CanopyError(f"{path}: recording {twice} stands twice; {mend}")
    ids = recordings["recording_id"].astype(str)
    for fault, found in (
        ("lacks", sorted(set(ids) - set(folds["recording_id"]))),
        ("has unknown", sorted(set(folds["recording_id"]) - set(ids))),
    ):
        if found:
            raise CanopyError(
                f"{path}: {fault} {len(found)} recording(s), the first {found[0]}; {mend}"
            )
    folds = _numbered(path, folds, n_folds).set_index("recording_id").loc[ids].reset_index()
    _check_whole_groups(path, folds["fold"], recordings["group"])
    return folds


def _numbered(path: Path | str, folds: pd.DataFrame, n_folds: int | None) -> pd.DataFrame:
    whole = folds["fold"].str.fullmatch(r"[0-9]{1,9}").astype(bool)
    known = {str(fold) for fold in range(n_folds)} if n_folds is not None else None
    bad = ~whole if known is None else ~folds["fold"].isin(known)
    if bad.any():
        row = folds[bad].iloc[0]
        allowed = "0 or more" if n_folds is None else f"0 to {n_folds - 1}"
        raise CanopyError(
            f"{path}: recording {row['recording_id']} has fold {row['fold']!r}, expected a whole "
            f"number, {allowed}; run the split stage again"
        )
    return folds[["recording_id", "fold"]].astype({"fold": np.int64})


def _check_whole_groups(path: Path | str, fold: pd.Series, group: pd.Series) -> None:
    per_group = fold.groupby(group.to_numpy()).unique()
    torn = per_group[per_group.map(len) > 1]
    if len(torn):
        raise CanopyError(
            f"{path}: group {torn.index[0]} stands in folds "
            f"{' and '.join(str(one) for one in sorted(torn.iloc[0])[:2])}; run the split stage "
            "again"
        )


def _need_columns(frame: pd.DataFrame, columns: tuple[str, ...], name: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise CanopyError(f"{name}: no column {', '.join(missing)}; add it")


def _checked(
    recordings: pd.DataFrame, events: pd.DataFrame, labels: list[str], n_folds: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables cut to what is used, ids and groups as text, events of train recordings only."""
    if n_folds < 2:
        raise CanopyError(f"split.n_folds is {n_folds}; cross-validation needs at least 2")
    _need_columns(recordings, ("recording_id", "subset", "group"), "recordings")
    _need_columns(events, ("recording_id", "label", "polarity"), "events")
    recordings = recordings[["recording_id", "subset", "group"]]
    if recordings["group"].isna().any():
        nowhere = recordings.loc[recordings["group"].isna(), "recording_id"].iloc[0]
        raise CanopyError(
            f"recordings: {nowhere} has no group; give its site or session, or its own id"
        )
    recordings = recordings.astype({"recording_id": str, "group": str})
    if recordings["recording_id"].duplicated().any():
        twice = recordings.loc[recordings["recording_id"].duplicated(), "recording_id"].iloc[0]
        raise CanopyError(f"recordings: {twice} stands twice; keep one row of it")
    events = events[["recording_id", "label", "polarity"]]
    events = events.astype({"recording_id": str, "label": str})
    for column, known, table in (
        ("recording_id", recordings["recording_id"], "recordings"),
        ("label", labels, "classes"),
    ):
        unknown = ~events[column].isin(known)
        if unknown.any():
            raise CanopyError(
                f"events: {column} {events.loc[unknown, column].iloc[0]} is not in {table}; add "
                "it there or drop its rows"
            )
    train = recordings.loc[recordings["subset"] == "train", "recording_id"]
    return recordings, events[events["recording_id"].isin(train)]


def _count_rows(recordings: pd.DataFrame, events: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Event rows of each labelled group: positives of every class, then its negatives.

    Index: groups with any row, sorted. Columns: (polarity, label).
    """
    group = events["recording_id"].map(recordings.set_index("recording_id")["group"])
    polarity = np.where(events["polarity"].astype(float) > 0, 1, -1)
    table = pd.crosstab(group, [polarity, events["label"]])
    columns = pd.MultiIndex.from_product([(1, -1), labels])
    return table.reindex(columns=columns, fill_value=0).sort_index()


def _check_enough(
    recordings: pd.DataFrame, counts: pd.DataFrame, labels: list[str], n_folds: int
) -> None:
    n_groups = recordings.loc[recordings["subset"] == "train", "group"].nunique()
    if n_groups < n_folds:
        raise CanopyError(
            f"train recordings form {n_groups} group(s), fewer than the {n_folds} folds; lower "
            "split.n_folds or give finer groups"
        )
    groups_with = {label: int((counts[(1, label)] > 0).sum()) for label in labels}
    scarce = {label: count for label, count in groups_with.items() if count < n_folds}
    if scarce:
        fewest = min(scarce.values())
        mend = f"lower split.n_folds to {fewest}" if fewest >= 2 else "drop the class from classes"
        raise CanopyError(
            f"positives must lie in at least as many groups as there are folds ({n_folds}), found "
            f"{', '.join(f'{label}: {count}' for label, count in scarce.items())}; {mend}, or "
            "label more recordings"
        )


def _stratify(counts: pd.DataFrame, n_folds: int, seed: int) -> pd.Series:
    """Fold of each labelled group: the best of several attempts at iterative stratification."""
    # Imported here: all stages read folds, one makes them.
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    if counts.empty:
        return pd.Series(dtype=np.int64)
    rows = counts.to_numpy()
    best, best_cost = None, (np.inf, np.inf)
    for attempt_seed in np.random.SeedSequence(seed).generate_state(_N_ATTEMPTS):
        splitter = MultilabelStratifiedKFold(n_folds, shuffle=True, random_state=int(attempt_seed))
        fold = np.empty(len(rows), dtype=np.int64)
        for number, (_, held_out) in enumerate(splitter.split(rows, rows > 0)):
            fold[held_out] = number
        cost = _imbalance(rows, fold, n_folds)
        if cost < best_cost:
            best, best_cost = fold, cost
    return pd.Series(best, index=counts.index)


def _imbalance(rows: np.ndarray, fold: np.ndarray, n_folds: int) -> tuple[float, float]:
    """How far folds are from equal shares: first the holes, then chi-square of the row counts.

    A hole is a class without positives in a fold: it could not be scored there.
    """
    per_fold = np.stack([rows[fold == number].sum(axis=0) for number in range(n_folds)])
    n_labels = rows.shape[1] // 2
    holes = float((per_fold[:, :n_labels] == 0).sum())
    expected = np.maximum(per_fold.mean(axis=0), 1e-9)
    return holes, float((((per_fold - expected) ** 2) / expected).sum())


def _spread(
    sizes: pd.DataFrame, fold_of_group: pd.Series, n_folds: int, seed: int
) -> dict[str, int]:
    """Folds of all groups: those given, and the rest where their subsets are least represented.

    `sizes` holds recordings a group and subset. Largest groups go first, so that the small ones
    can even out what is left; ties between groups and folds are broken by `seed`.
    """
    rng = np.random.default_rng(seed)
    folds = {str(group): int(fold) for group, fold in fold_of_group.items()}
    held = np.zeros((n_folds, sizes.shape[1]))
    for group, fold in folds.items():
        held[fold] += sizes.loc[group].to_numpy()
    rest = sizes.drop(index=list(folds)).sort_index()
    total = rest.sum(axis=1).to_numpy()
    for position in np.lexsort((rng.permutation(len(rest)), -total)):
        size = rest.iloc[position].to_numpy()
        # Recordings of the same subsets that a fold holds already, then recordings of any.
        fold = np.lexsort((rng.permutation(n_folds), held.sum(axis=1), held @ size))[0]
        folds[str(rest.index[position])] = int(fold)
        held[fold] += size
    return folds
