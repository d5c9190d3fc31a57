"""How results are measured, which events are made of scores, what the report shows."""

from typing import Annotated

from pydantic import Field, model_validator

from local.config.section_base import Positive, Section, Some
from local.io.limits import MAX_RESAMPLES


class ScoreConfig(Section):
    """How results are measured. Truth files are opened by scoring alone."""

    metric: str = "lwlrap"
    n_bootstrap: Annotated[int, Field(ge=0, le=MAX_RESAMPLES)] = 1000
    # Clip-level truth of test and of train: csv of recording_id and one 0/1 column a class, below
    # the data folder. What does not exist is passed over.
    test_truth: str | None = None
    train_truth: str | None = None
    # All true spans of test recordings, that events are scored against and pictures show: csv of
    # recording_id, species_id, t_min, t_max, or of the columns of events.csv.
    test_events: str | None = None


class EventsConfig(Section):
    """Stage 5: one rule that makes events of scores, fitted out-of-fold.

    See local/scoring/event_rules/tuning.py.
    """

    # Write rule.json, oof_events.csv and test_events.csv; annotation must be complete. Where no
    # configuration says, it is on if annotation is complete.
    tune: bool = False
    # Limits of overlap for which F1 is measured, the mean of which is fitted; 0: any overlap.
    ious: Annotated[tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...], Field(min_length=1)] = (
        0.0,
        0.5,
    )
    # What is tried, in all combinations: rising probabilities; how far below, in logits, an event
    # goes on; seconds of the shortest event and of the longest gap that is closed, null: told from
    # the labelled calls.
    thresholds: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
    drops: tuple[float, ...] = (0.0, 0.7, 1.4)
    durations_s: tuple[float, ...] | None = None
    gaps_s: tuple[float, ...] | None = None
    # Ids of recordings that are changed copies of others (fainter, noisier), as a pattern such as
    # copy-*: the rule is fitted on them too, so that it holds there; no event and no figure is
    # theirs. null: there are none.
    copies: str | None = None
    # Of sed_eval's measures: how far an onset may be off (an offset too, or half of the call's
    # length where that is more), and the length of segments.
    collar_s: Positive = 0.2
    segment_s: Positive = 1.0

    @model_validator(mode="after")
    def _values_that_can_be(self) -> "EventsConfig":
        seconds = [one for one in (self.durations_s, self.gaps_s) if one is not None]
        lists = (self.thresholds, self.drops, *seconds)
        if not all(lists) or not all(0 < value < 1 for value in self.thresholds):
            raise ValueError("thresholds must be probabilities between 0 and 1, and no list empty")
        if list(self.thresholds) != sorted(self.thresholds):
            raise ValueError(f"thresholds are {list(self.thresholds)}; give them in rising order")
        if min([0.0, *self.drops, *(value for values in seconds for value in values)]) < 0:
            raise ValueError("drops, durations_s and gaps_s must be 0 or more")
        return self


class ReportConfig(Section):
    """What report.html shows."""

    # Recordings to look at and to judge (of long ones, minutes); 0: none.
    n_recordings: Some = 24
    # How many times slower sounds play; null: 10 above a sample rate of 48000, else 1.
    time_expansion: Annotated[float, Field(ge=1.0, le=100.0)] | None = None
