"""A picture of a bank of learned filters: what each lets through, before training and after."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from local.io.errors import CanopyError
from local.io.files import atomic_path, write_csv
from local.models import create_model, without_pretrained
from local.models.checkpoint import load_checkpoint, load_model, read_recipe
from local.models.sinc_filters import FilterResponse, SincFilters, filter_response
from local.report.theme import drawing, new_figure, place, to_png, to_svg

_WRITERS = {".png": to_png, ".svg": to_svg}

_PANEL_PX, _LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX, _GAP_PX = 260, 52, 14, 30, 44, 24
# Below this level of a filter's own largest answer nothing more is told apart.
_LOWEST_DB = -60.0


def draw_filters(model: Path, output: Path, table: Path | None = None) -> None:
    """Draw the filters of a model's file, and write their edges in hertz to a csv.

    Raises
    ------
    CanopyError
        The model has no learned filters, or the picture's name ends in neither .png nor .svg.
    """
    if output.suffix not in _WRITERS:
        raise CanopyError(f"{output}: name a picture that ends in .png or .svg")
    begun, trained = banks(model)
    found = {"before training": filter_response(begun), "after training": filter_response(trained)}
    with atomic_path(output) as path:
        Path(path).write_bytes(_WRITERS[output.suffix](filters_figure(found)))
    if table is not None:
        edges = {
            f"{edge}_{when}_hz": (values * bank.sample_rate).detach().numpy()
            for when, bank in (("before", begun), ("after", trained))
            for edge, values in zip(("low", "high"), bank.edges(), strict=True)
        }
        write_csv(table, pd.DataFrame(edges))


def banks(path: Path) -> tuple[SincFilters, SincFilters]:
    """The filters of the model as it began and as it is."""
    recipe = read_recipe(load_checkpoint(path), path)
    trained = load_model(path, recipe["labels"])
    after = getattr(trained, "filters", None)
    if not isinstance(after, SincFilters):
        raise CanopyError(f"{path}: model {recipe['name']} has no learned filters to draw")
    # Where filters start is no matter of chance.
    params = without_pretrained(recipe["params"])
    begun = create_model(recipe["name"], params, recipe["n_classes"], recipe["n_bands"])
    before = begun.filters
    assert isinstance(before, SincFilters)  # noqa: S101 (of the same kind of model)
    return before, after


def filters_figure(responses: dict[str, FilterResponse], width_px: float = 900) -> Figure:
    """Banks of filters beside each other, one row a filter in the order of their middles.

    Parameters
    ----------
    responses : title -> answer of the bank, of `local.models.sinc_filters.filter_response`.

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
