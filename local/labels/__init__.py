"""The only place where time meets index: events -> targets of frames and windows -> events.

A frame is a cell of time. Feature frames come from a centred short-time transform: frame i is
centred on sample i*hop and stands for [(i - 1/2) hop, (i + 1/2) hop). Samples stand for
[i, i + 1) / rate. A `FrameGrid` holds that convention once; nothing else converts seconds.

- `grid`: cells of time, and what spans fill of them
- `targets`: events to targets and masks of a window
- `spans`: scores over time to spans
"""

from local.labels.grid import FrameGrid, coverage, envelope, grid_of, overlap, to_frames
from local.labels.spans import Span, SpanFinder, SpanRule, frames_to_events, subtract_spans
from local.labels.targets import (
    PSEUDO,
    EventArrays,
    Targets,
    events_by_recording,
    needed_s,
    visible_enough,
    window_targets,
)

__all__ = [
    "PSEUDO",
    "EventArrays",
    "FrameGrid",
    "Span",
    "SpanFinder",
    "SpanRule",
    "Targets",
    "coverage",
    "envelope",
    "events_by_recording",
    "frames_to_events",
    "grid_of",
    "needed_s",
    "overlap",
    "subtract_spans",
    "to_frames",
    "visible_enough",
    "window_targets",
]
