"""How short the cells of the model's output must be for the calls that are labelled.

A cell is one column of the output. `wanted_cell` is what is suggested, about a third of the 10th
percentile of calls and of gaps, so that a short call fills cells of its own and a short gap leaves
one between two calls; `check_cells` holds any configuration against the labels.
"""

import logging
from dataclasses import dataclass

import numpy as np

from local.config import Config
from local.data.annotated import Annotated, share_below, tenth
from local.io.errors import CanopyError
from local.scoring.event_rules.labelled_lengths import said, tidy_below

log = logging.getLogger("canopy")

# Cells a call or a gap of the 10th percentile should span.
_CELLS_A_SPAN = 3
# Cells that all but a tenth of the calls of a class span, however few these are: hops are whole
# numbers of samples, so that a cell may be longer than wanted.
_LEAST_CELLS_A_CALL = 2
# Seconds of a cell: none is longer, none is shorter.
_LONGEST_CELL_S, _SHORTEST_CELL_S = 0.16, 0.0005
# Gaps much shorter than calls are how somebody drew the boxes: cells a call gives, at most.
_MOST_CELLS_A_CALL = 12
# More of the calls, or of the gaps, than this may not be shorter than a cell.
_MOST = 0.1
# As above: cells are about as long as wanted.
_SLACK = 1.2
# Classes that one message names, those with the greatest share of short calls first.
_NAMED = 3


def wanted_cell(annotated: Annotated) -> float:
    """Seconds of a cell that would do for nine tenths of calls and gaps, within what pays.

    Calls are looked at by class: one whose calls are few is not outvoted by those of another.
    """
    classes = annotated.durations.values()
    cell = min(map(_cell_of_calls, classes), default=_LONGEST_CELL_S)
    gap = annotated.least("gaps", _MOST)
    if gap is not None:
        gap = min(gap, tenth(annotated.all("gaps")))
        cell = min(cell, max(gap / _CELLS_A_SPAN, cell * _CELLS_A_SPAN / _MOST_CELLS_A_CALL))
    return min(_LONGEST_CELL_S, max(_SHORTEST_CELL_S, cell))


def _cell_of_calls(durations: np.ndarray) -> float:
    usual = float(np.quantile(durations, _MOST)) / _CELLS_A_SPAN
    return min(usual, tenth(durations) / _LEAST_CELLS_A_CALL)


@dataclass(frozen=True)
class _Short:
    """Calls or gaps of which more than a tenth are shorter than a cell.

    name : what they are. values : their lengths in seconds. one_class : whether they are the calls
    of one class among several.
    """

    name: str
    values: np.ndarray
    one_class: bool = False

    def told(self, cell: float) -> str:
        share = share_below(self.values, cell)
        n = round(share * len(self.values))
        return f"{n} of {len(self.values)} {self.name} ({share:.0%})"


def check_cells(config: Config, annotated: Annotated, hop_s: float, step: int) -> None:
    """Say where more than a tenth of calls or gaps is shorter than a cell.

    That is: of all calls, of the calls of any class, or of all gaps between calls of one class.

    Parameters
    ----------
    hop_s, step : seconds a frame, and frames a cell of the model's output.

    Raises
    ------
    CanopyError
        Where `data.short_calls` is refuse. Elsewhere it is a warning, and so it is for gaps where
        cells are as short already as would be suggested (boxes may be drawn without a gap).
    """
    cell, wanted = hop_s * step, wanted_cell(annotated)
    frames = f"{step} frames of {said(hop_s, 's')}"
    is_cell = f"a cell of the model's output, {said(cell, 's')} ({frames})"
    calls, gaps = _short_calls(annotated, cell), _short_gaps(annotated, cell)
    if gaps and cell <= _SLACK * wanted:
        log.warning(
            "%s, shorter than %s: it cannot tell them; cells for them would take more time than "
            "they are worth",
            *(_told(gaps, cell), is_cell),
        )
        gaps = []
    if not calls + gaps:
        return
    limits = [tenth(one.values) for one in calls]
    limits += [max(wanted, tenth(one.values)) for one in gaps]
    message = (
        f"{_told(calls + gaps, cell)}, shorter than {is_cell}: it cannot tell them; cells of "
        f"{said(tidy_below(min(limits)), 's')} would do: {_mend(config, min(limits), step)}"
    )
    if config.data.short_calls == "refuse":
        raise CanopyError(f"{message}, or set data.short_calls to warn")
    log.warning("%s", message)


def _short_calls(annotated: Annotated, cell: float) -> list[_Short]:
    """All calls, and those of each of several classes, the greatest share of short ones first."""
    found = [_Short("labelled calls", annotated.all("durations"))]
    if len(annotated.durations) > 1:
        of_classes = [
            _Short(f"calls of class {label}", values, one_class=True)
            for label, values in annotated.durations.items()
        ]
        found += sorted(of_classes, key=lambda one: -share_below(one.values, cell))
    return [
        one
        for one in found
        if share_below(one.values, cell) > _MOST
        # Of a class of few, a single one may be a stray box.
        and (not one.one_class or (one.values < cell).sum() > 1)
    ]


def _short_gaps(annotated: Annotated, cell: float) -> list[_Short]:
    gaps = _Short("gaps between calls of one class", annotated.all("gaps"))
    return [gaps] if share_below(gaps.values, cell) > _MOST else []


def _told(short: list[_Short], cell: float) -> str:
    """What is shorter than a cell of so many seconds, in words."""
    classes = [one for one in short if one.one_class]
    named = [one for one in short if not one.one_class] + classes[:_NAMED]
    words = [one.told(cell) for one in named]
    if len(classes) > _NAMED:
        words.append(f"calls of {len(classes) - _NAMED} more classes")
    return f"{' and '.join(words)} last less than {said(cell, 's')}"


def _mend(config: Config, tenth: float, step: int) -> str:
    """The setting that would do: cells no longer than the tenth of calls or gaps, in seconds."""
    rate = config.audio.sample_rate
    hop = int(tenth * rate / step)
    if config.features.kind == "wave":
        return (
            f"lower the frames of model {config.model.name} to {said(tenth, 's')} or less "
            "(model.params.frame_ms, or its pooling)"
        )
    if hop * 1000 >= rate:
        return f"set features.hop_length to {hop} or less"
    # Frames of less than a millisecond for want of pooling: pool less.
    frames = max(1, int(tenth / (config.features.hop_length / rate)))
    hop = max(1, min(config.features.hop_length, int(tenth * rate / frames)))
    return (
        f"pool at most {frames} frames in model.params of {config.model.name} (now {step}) with "
        f"features.hop_length {hop}"
    )
