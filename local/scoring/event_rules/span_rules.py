"""A rule of spans for each class, from thresholds and lengths: what makes events of scores."""

import numpy as np
import pandas as pd

from local.labels.spans import SpanRule


def make_span_rules(
    thresholds: pd.DataFrame,
    low_threshold: float | None,
    min_duration_s: float,
    max_gap_s: float,
    max_duration_s: float = np.inf,
) -> list[SpanRule]:
    """One rule a class, in logits.

    Parameters
    ----------
    thresholds : of `thresholds.fit_thresholds`.
    low_threshold : probability down to which a span goes on; None: the class's threshold, which it
        never exceeds.
    """
    low = None if low_threshold is None else float(np.log(low_threshold) - np.log1p(-low_threshold))
    return [
        SpanRule(
            threshold=float(logit),
            low_threshold=None if low is None else min(low, float(logit)),
            min_duration_s=min_duration_s,
            max_gap_s=max_gap_s,
            max_duration_s=max_duration_s,
        )
        for logit in thresholds["logit"]
    ]
