"""Windows of the dump with their targets: what to draw in an epoch, and how to read it.

- `dump`: `Dump`, the feature files of stage 0 by recording
- `plan`: `Pool`, what a fold may draw from; `plan_epoch`, the windows of an epoch
- `vary`: `vary_epoch`, how each window is read: stretched, as waveform, over a background
- `windows`: `WindowDataset`, one window with its targets
"""

from local.dataset.dump import Dump
from local.dataset.plan import Pool, make_pool, plan_epoch
from local.dataset.vary import Variations, vary_epoch
from local.dataset.windows import WindowDataset
from local.windows import training_window, window_frames

__all__ = [
    "Dump",
    "Pool",
    "Variations",
    "WindowDataset",
    "make_pool",
    "plan_epoch",
    "training_window",
    "vary_epoch",
    "window_frames",
]
