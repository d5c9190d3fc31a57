"""The only place where time meets index: events -> targets of frames and windows -> events.

A frame is a cell of time. Feature frames come from a centred short-time transform: frame i is
centred on sample i*hop and stands for [(i - 1/2) hop, (i + 1/2) hop). Samples stand for
[i, i + 1) / rate. A `FrameGrid` holds that convention once; nothing else converts seconds.

- `grid`: a hop in seconds, cells of time, and what spans fill of them
- `windows`: where windows lie in a recording, and how their scores are stitched
- `targets`: events to targets and masks of a window
- `spans`: scores over time to spans
"""
