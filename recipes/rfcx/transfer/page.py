"""TRANSFER.md: every rule that was tried is a row."""

from pathlib import Path

import numpy as np
import pandas as pd

from local.io.files import write_text
from local.io.seeds import generator
from recipes.rfcx.transfer.choosing import leave_out, mean_interval
from recipes.rfcx.transfer.relabelling import CYCLES

# What a correction of prevalence may cost on any competition.
ALLOWED_LOSS = 0.005


def write_page(
    path: Path,
    command: str,
    ranking: pd.DataFrame,
    events: pd.DataFrame,
    cycles: pd.DataFrame,
    passed: list[str],
) -> None:
    """Write the page.

    Parameters
    ----------
    ranking : `competition, seed, rule, lwlrap` of shifted test scores; the rule none is the plain
        ones.
    events : `competition, seed, rule, drop` and the figures of `event_rules.Figures`.
    cycles : `relabelling.cycles_table`.
    passed : competitions that were passed over, as they need what is not there.
    """
    names = list(dict.fromkeys(ranking["competition"]))
    parts = [
        "# Rules that hold where nobody tuned them",
        f"    {command}",
        f"{len(names)} small competitions ({', '.join(names)}), seeds "
        f"{', '.join(map(str, sorted(set(ranking['seed']))))}: the scores of a first training, "
        "kept, and every rule for deciding tried on all of them. A rule is chosen on the "
        "competitions but one and tried on that one (left out); intervals are bootstraps over "
        "competitions. What is called true uses what nobody knows, for comparison.",
        *([f"Passed over, as their sounds are not there: {', '.join(passed)}."] if passed else []),
        "## Correction of prevalence",
        "LWLRAP of the test recordings against that of the plain scores.",
        _ranking_table(ranking),
        "## Thresholds and extents",
        "Events of the test recordings against the true ones. Drop: how far below the threshold, "
        "in logits, an event goes on. F1 at any overlap, micro and macro over classes; median IoU "
        "of matched pairs.",
        _events_table(events),
        "## Promised precision",
        "Of `--threshold precision=...`: what is kept where something is found; the worst class.",
        _promises(events),
        *([] if cycles.empty else ["## Relabelling", _RELABELLING, _cycles_table(cycles)]),
    ]
    write_text(path, "\n\n".join(parts) + "\n")


def gains_of(ranking: pd.DataFrame) -> pd.DataFrame:
    """A row a rule, a column a competition and seed: what the rule gains over none."""
    table = ranking.pivot_table(index="rule", columns=["competition", "seed"], values="lwlrap")
    return table - table.loc["none"]


def _ranking_table(ranking: pd.DataFrame) -> str:
    gains = gains_of(ranking)
    known = gains[~gains.index.str.startswith("true")]
    groups = pd.Series(gains.columns.get_level_values(0), index=gains.columns)
    choice = leave_out(known, groups, ALLOWED_LOSS)
    order = gains.mean(axis=1).sort_values(ascending=False).index
    lines = ["| rule | mean gain | worst | where | better in |", "| --- | --- | --- | --- | --- |"]
    for rule in order:
        row = gains.loc[rule]
        lines.append(_ranking_row(rule, row))
    lines.append(_ranking_row("**chosen, left out**", choice.left_out))
    chosen = ", ".join(f"{rule} ({n})" for rule, n in choice.chosen.value_counts().items())
    lines.append(f"\nChosen on all: {choice.best}. Chosen without one: {chosen}.")
    return "\n".join(lines)


def _ranking_row(rule: str, row: pd.Series) -> str:
    low, high = _interval(row)
    worst = row.astype(float).idxmin()
    where = worst[0] if isinstance(worst, tuple) else worst
    return (
        f"| {rule} | {row.mean():+.3f} ({low:+.3f} to {high:+.3f}) | {row.min():+.3f} | {where} | "
        f"{int((row > 0).sum())} of {len(row)} |"
    )


def _interval(values: pd.Series) -> tuple[float, float]:
    """Of the mean over competitions; the seeds of one are no competitions of their own."""
    of_each = values.astype(float).groupby(level=0).mean()
    return mean_interval(of_each.to_numpy(), generator(0, "transfer"))


def _events_table(events: pd.DataFrame) -> str:
    lines = [
        "| rule | drop | F1 | worst F1 | where | macro F1 | precision | recall | F1, IoU > .5 "
        "| IoU |",
        f"|{' --- |' * 10}",
    ]
    grouped = events.groupby(["rule", "drop"], sort=False)
    means = grouped[["f1", "macro", "precision", "recall", "f1_half", "iou"]].mean()
    for rule, drop in means["f1"].sort_values(ascending=False).index:
        mean = means.loc[(rule, drop)]
        mine = grouped.get_group((rule, drop)).set_index("competition")["f1"]
        low, high = _interval(mine)
        lines.append(
            f"| {rule} | {drop} | {mean.f1:.3f} ({low:.3f}-{high:.3f}) | {mine.min():.3f} | "
            f"{mine.idxmin()} | {mean.macro:.3f} | {mean.precision:.3f} | {mean.recall:.3f} | "
            f"{mean.f1_half:.3f} | {mean.iou:.3f} |"
        )
    return "\n".join(lines)


_RELABELLING = (
    "Cycles that go on from the first training, on the competitions where they ran. LWLRAP: of "
    "what is handed in (the cycle with the best out-of-fold evidence, prevalence corrected), "
    "beside the plain scores of cycle 0. Macro average precision (AP): of the last cycle and of "
    "the one handed in, against cycle 0. Mean over competitions, and the worst."
)


def _cycles_table(cycles: pd.DataFrame) -> str:
    lines = [
        "| cycles | competitions | LWLRAP, cycle 0 plain | handed in | gain | worst | "
        "AP, cycle 0 | last cycle | worst | handed in | worst |",
        f"|{' --- |' * 11}",
    ]
    for tag, rows in cycles.groupby("tag", sort=False):
        by_name = rows.groupby("competition", sort=False).mean(numeric_only=True)
        gain, last, chosen = (
            by_name[after] - by_name[before]
            for before, after in (("raw", "lwlrap"), ("ap_first", "ap_last"), ("ap_first", "ap"))
        )
        mean = by_name.mean()
        lines.append(
            f"| {CYCLES[str(tag)][0]} | {len(by_name)} | {mean.raw:.3f} | {mean.lwlrap:.3f} | "
            f"{gain.mean():+.3f} | {_worst(gain)} | {mean.ap_first:.3f} | {last.mean():+.3f} | "
            f"{_worst(last)} | {chosen.mean():+.3f} | {_worst(chosen)} |"
        )
    lines += ["", "By competition, LWLRAP handed in and AP handed in, against cycle 0:", ""]
    lines += ["| competition | seed | cycles | handed in | LWLRAP | AP |", f"|{' --- |' * 6}"]
    for row in cycles.itertuples():
        what = CYCLES[str(row.tag)][0]
        lines.append(
            f"| {row.competition} | {row.seed} | {what} | cycle {row.submitted} | "
            f"{row.raw:.3f} to {row.lwlrap:.3f} | {row.ap_first:.3f} to {row.ap:.3f} |"
        )
    return "\n".join(lines)


def _worst(values: pd.Series) -> str:
    return f"{values.min():+.3f}, {values.idxmin()}"


def _promises(events: pd.DataFrame) -> str:
    lines = ["| rule | sets with events | precision | worst set | worst class | recall |"]
    lines.append(f"|{' --- |' * 6}")
    for rule, rows in events[events["rule"].str.contains("precision=")].groupby("rule", sort=False):
        found = rows[rows["precisions"].map(lambda one: np.isfinite(one).any())]
        if found.empty:
            lines.append(f"| {rule} | 0 of {len(rows)} | | | | 0 |")
            continue
        lowest = found.loc[found["precision"].idxmin()]
        worst = found.loc[found["precisions"].map(np.nanmin).idxmin()]
        lines.append(
            f"| {rule} | {len(found)} of {len(rows)} | {found.precision.mean():.3f} | "
            f"{lowest.precision:.3f}, {lowest.competition} | {np.nanmin(worst.precisions):.3f}, "
            f"s{np.nanargmin(worst.precisions)} of {worst.competition} | "
            f"{rows.recall.mean():.3f} |"
        )
    return "\n".join(lines)
