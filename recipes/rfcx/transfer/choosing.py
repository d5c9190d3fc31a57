"""A choice of rules by leaving competitions out: what is chosen on the others is tried on one."""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Choice:
    """What choosing is worth.

    best : the rule chosen on all competitions. left_out : (K,) its kind's gain on each competition,
    by the rule chosen on those of other names; chosen : those rules.
    """

    best: str
    left_out: pd.Series
    chosen: pd.Series


def pick(gains: pd.DataFrame, allowed_loss: float) -> str:
    """The rule with the highest mean gain of those that nowhere lose more than is allowed.

    gains : a row a rule, a column a competition. Where all lose more, the one that loses least.
    """
    worst = gains.min(axis=1)
    held = gains[worst >= -allowed_loss]
    return str(held.mean(axis=1).idxmax() if len(held) else worst.idxmax())


def leave_out(gains: pd.DataFrame, groups: pd.Series, allowed_loss: float) -> Choice:
    """Choose without each group of columns (a competition's seeds), and try it there.

    groups : of each column of `gains`.
    """
    chosen = pd.Series(index=gains.columns, dtype=object)
    value = pd.Series(index=gains.columns, dtype=float)
    for column in gains.columns:
        others = gains.loc[:, groups[gains.columns] != groups[column]]
        chosen[column] = pick(others, allowed_loss)
        value[column] = gains.loc[chosen[column], column]
    return Choice(pick(gains, allowed_loss), value, chosen)


def mean_interval(
    values: np.ndarray, rng: np.random.Generator, n: int = 2000
) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over competitions."""
    drawn = rng.integers(0, len(values), (n, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
