"""Whether the cells of the model's output are short enough for the calls that are labelled."""

import logging

import numpy as np

from local.config import Config
from local.data.annotated import Annotated, share_below
from local.io.errors import CanopyError
from local.scoring.event_rules.labelled_lengths import said

log = logging.getLogger("canopy")

# More of the calls, or of the gaps, than this may not be shorter than a cell.
_MOST = 0.1


def check_cells(config: Config, annotated: Annotated, hop_s: float, step: int) -> None:
    """Say where more than a tenth of the calls, or of the gaps, is shorter than a cell.

    Parameters
    ----------
    hop_s, step : seconds a frame, and frames a cell of the model's output.

    Raises
    ------
    CanopyError
        Where `data.short_calls` is refuse; otherwise it is a warning.
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
    tenth = min(float(np.quantile(values, _MOST)) for values in short.values())
    message = (
        f"{told}, shorter than a cell of the model's output, {said(cell, 's')} ({step} frames of "
        f"{said(hop_s, 's')}): it cannot tell them; {_mend(config, tenth, step)}"
    )
    if config.data.short_calls == "refuse":
        raise CanopyError(f"{message}, or set data.short_calls to warn")
    log.warning("%s", message)


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
