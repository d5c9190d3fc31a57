"""How short the cells of the model's output must be for the calls that are labelled.

A cell is one column of the output. `wanted_cell` is what is suggested, about a third of the 10th
percentile of calls and of gaps, so that a short call fills cells of its own and a short gap leaves
one between two calls; `check_cells` holds any configuration against the labels.
"""

import logging

import numpy as np

from local.config import Config
from local.data.annotated import Annotated, share_below
from local.io.errors import CanopyError
from local.scoring.event_rules.labelled_lengths import said

log = logging.getLogger("canopy")

# Cells a call or a gap of the 10th percentile should span.
_CELLS_A_SPAN = 3
# Seconds of a cell: none is longer, none is shorter.
_LONGEST_CELL_S, _SHORTEST_CELL_S = 0.16, 0.0005
# Gaps much shorter than calls are how somebody drew the boxes: cells a call gives, at most.
_MOST_CELLS_A_CALL = 12
# More of the calls, or of the gaps, than this may not be shorter than a cell.
_MOST = 0.1
# Hops are whole numbers of samples, so that cells are about as long as wanted.
_SLACK = 1.2


def wanted_cell(annotated: Annotated) -> float:
    """Seconds of a cell that would do for nine tenths of calls and gaps, within what pays."""
    call = annotated.least("durations", 0.1) or _LONGEST_CELL_S * _CELLS_A_SPAN
    gap = annotated.least("gaps", 0.1)
    cell = call / _CELLS_A_SPAN
    if gap is not None:
        cell = min(cell, max(gap / _CELLS_A_SPAN, call / _MOST_CELLS_A_CALL))
    return min(_LONGEST_CELL_S, max(_SHORTEST_CELL_S, cell))


def check_cells(config: Config, annotated: Annotated, hop_s: float, step: int) -> None:
    """Say where more than a tenth of the calls, or of the gaps, is shorter than a cell.

    Parameters
    ----------
    hop_s, step : seconds a frame, and frames a cell of the model's output.

    Raises
    ------
    CanopyError
        Where `data.short_calls` is refuse. Elsewhere, and where cells are as short already as
        would be suggested (boxes may be drawn without a gap), it is a warning.
    """
    cell = hop_s * step
    measured = {
        "labelled calls": annotated.all("durations"),
        "gaps between calls of one class": annotated.all("gaps"),
    }
    short = {name: values for name, values in measured.items() if share_below(values, cell) > _MOST}
    if not short:
        return
    told = " and ".join(_told(name, values, cell) for name, values in short.items())
    wanted = wanted_cell(annotated)
    tenth = max(wanted, min(float(np.quantile(values, _MOST)) for values in short.values()))
    message = (
        f"{told}, shorter than a cell of the model's output, {said(cell, 's')} ({step} frames of "
        f"{said(hop_s, 's')}): it cannot tell them; "
    )
    if cell <= _SLACK * wanted:
        log.warning("%scells for them would take more time than they are worth", message)
    elif config.data.short_calls == "warn":
        log.warning("%s%s", message, _mend(config, tenth, step))
    else:
        raise CanopyError(f"{message}{_mend(config, tenth, step)}, or set data.short_calls to warn")


def _told(name: str, values: np.ndarray, cell: float) -> str:
    n = int(np.sum(values < cell))
    tenth = float(np.quantile(values, _MOST))
    return (
        f"{n} of {len(values)} {name} ({n / len(values):.0%}) last less than {said(cell, 's')} "
        f"(a tenth less than {said(tenth, 's')})"
    )


def _mend(config: Config, tenth: float, step: int) -> str:
    """The setting that would do: cells no longer than the tenth of calls or gaps."""
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
