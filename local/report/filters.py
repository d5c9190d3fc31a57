"""A picture of a bank of learned filters: what each lets through, before training and after."""

import numpy as np
from matplotlib.figure import Figure

from local.models.sinc import FilterResponse
from local.report.theme import drawing, new_figure, place

_PANEL_PX, _LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX, _GAP_PX = 260, 52, 14, 30, 44, 24
# Below this level of a filter's own largest answer nothing more is told apart.
_LOWEST_DB = -60.0


def filters_figure(responses: dict[str, FilterResponse], width_px: float = 900) -> Figure:
    """Banks of filters beside each other, one row a filter in the order of their middles.

    Parameters
    ----------
    responses : title -> answer of the bank, of `local.models.sinc.filter_response`.

    Returns
    -------
    A figure of `width_px` CSS pixels; shades are decibels below each filter's largest answer.
    """
    n = len(responses)
    width = (width_px - _LEFT_PX - _RIGHT_PX - (n - 1) * _GAP_PX) / n
    with drawing():
        figure = new_figure(width_px, _TOP_PX + _PANEL_PX + _BOTTOM_PX)
        for index, (title, response) in enumerate(responses.items()):
            left = _LEFT_PX + index * (width + _GAP_PX)
            axes = place(figure, left, _TOP_PX, width, _PANEL_PX)
            n_filters = len(response.gain_db)
            top_khz = response.hertz[-1] / 1000
            axes.imshow(
                np.maximum(response.gain_db, _LOWEST_DB),
                origin="lower",
                aspect="auto",
                interpolation="none",
                cmap="magma",
                vmin=_LOWEST_DB,
                vmax=0.0,
                extent=(0.0, top_khz, 0.5, n_filters + 0.5),
            )
            axes.set_title(title)
            axes.set_xlabel("kHz")
            if index == 0:
                axes.set_ylabel("filter")
            else:
                axes.set_yticklabels([])
    return figure
