#!/usr/bin/env python3
"""Who calls, and why: a run's scores of voices beside mixtures of Gaussians over cepstra.

    recipes/bats/classify.py --tables dump/bats-context/tables --run exp/bats/context \
        --features dump/bats-context/FEATURE-ID --out exp/bats/context

For runs of task context or emitter. The network says of a voice the class of its highest mean
out-of-fold score over the voice; the mixtures are fitted on the voices of the other folds. Balanced
accuracy with intervals over files, the difference paired, beside chance. Of a run that ended with
stage 1, the mixtures alone. Writes voices.csv.
"""

import sys
from pathlib import Path

from local.jobs.arguments import ScriptParser
from local.jobs.exit_codes import run_script


def main(argv: list[str] | None = None) -> int:
    """Write and print the table."""
    parser = ScriptParser(__doc__)
    for name in ("tables", "run", "features", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--n-bootstrap", type=int, default=1000, help="resamples (%(default)s)")
    args = parser.parse_args(argv)

    from local.config import load_config
    from local.data.folds import read_folds
    from local.data.tables import read_tables
    from local.features.store import FeatureStore
    from local.inference.score_files import load_scores
    from local.io.files import write_csv
    from recipes.bats.voices import by_mixtures, by_network, compared

    tables = read_tables(args.tables)
    voices = tables.events[tables.events["polarity"] > 0].reset_index(drop=True)
    folds = read_folds(args.run / "folds.csv", tables.recordings).set_index("recording_id")["fold"]
    fold = folds.loc[voices["recording_id"]].to_numpy()
    said = {}
    kept = args.run / "cycle0" / "oof.npz"
    if kept.is_file():
        said["network"] = by_network(load_scores(kept)[0], voices)
    dump = FeatureStore(args.features, load_config(args.run / "config.yaml", []))
    said["mfcc_gmm"] = by_mixtures(dump, voices, fold)
    table = compared(said, voices, args.n_bootstrap)
    write_csv(args.out / "voices.csv", table)
    print(table.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
