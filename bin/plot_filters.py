#!/usr/bin/env python3
"""Draw the learned filters of a model of raw waveforms, before training and after.

    bin/plot_filters.py --model exp/bats/default/cycle0/fold0/best.pt --output filters.png

The name of --output says the kind of picture: .png or .svg. With --csv the edges of every filter,
in hertz, go to a table.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from local.io.errors import CanopyError
from local.io.files import atomic_path, write_csv
from local.models import create_model, without_pretrained
from local.models.checkpoint import load_checkpoint, load_model, read_recipe
from local.models.sinc import SincFilters, filter_response
from local.report.filters import filters_figure
from local.report.theme import to_png, to_svg

WRITERS = {".png": to_png, ".svg": to_svg}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="best.pt of a fold")
    parser.add_argument("--output", type=Path, required=True, help="picture to write")
    parser.add_argument("--csv", type=Path, help="table of edges to write")
    return parser.parse_args(argv)


def banks(path: Path) -> tuple[SincFilters, SincFilters]:
    """The filters of the model as it began and as it is."""
    recipe = read_recipe(load_checkpoint(path), path)
    trained = load_model(path, recipe["labels"])
    if not isinstance(getattr(trained, "filters", None), SincFilters):
        raise CanopyError(f"{path}: model {recipe['name']} has no learned filters to draw")
    # Where filters start is no matter of chance.
    params = without_pretrained(recipe["params"])
    begun = create_model(recipe["name"], params, recipe["n_classes"], recipe["n_bands"])
    return begun.filters, trained.filters


def main(argv: list[str] | None = None) -> int:
    """Draw; the exit code is 0 when done, 1 for a fault of the files."""
    args = parse_args(argv)
    try:
        if args.output.suffix not in WRITERS:
            raise CanopyError(f"{args.output}: name a picture that ends in .png or .svg")
        begun, trained = banks(args.model)
        found = {
            "before training": filter_response(begun),
            "after training": filter_response(trained),
        }
        with atomic_path(args.output) as path:
            Path(path).write_bytes(WRITERS[args.output.suffix](filters_figure(found)))
        if args.csv:
            edges = {
                f"{edge}_{when}_hz": (values * bank.sample_rate).detach().numpy()
                for when, bank in (("before", begun), ("after", trained))
                for edge, values in zip(("low", "high"), bank.edges(), strict=True)
            }
            write_csv(args.csv, pd.DataFrame(edges))
    except CanopyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
