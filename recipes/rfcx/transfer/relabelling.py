"""What cycles of relabelling are worth, by kind of labels and by where a cycle begins.

Unlike the other rules these need a training each, so they run where they are asked for; the table
has every one that has run.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from local.config import load_config
from local.inference.score_files import load_scores
from local.io.files import read_json
from local.scoring.known_labels import read_truth
from recipes.rfcx.ladder.climb import run_command
from recipes.rfcx.transfer.first_training import Place, command

_EVENTS, _SCRATCH = "relabel.kind=events", "relabel.start=scratch"
# Tag of the run -> what it is called, and its settings.
CYCLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "soft": ("soft labels, from the weights of cycle 0", ("relabel.n_cycles=1",)),
    "soft2": ("the same, two cycles", ("relabel.n_cycles=2",)),
    "soft-scratch": ("soft labels, from scratch", ("relabel.n_cycles=1", _SCRATCH)),
    "events": ("events, from the weights of cycle 0", ("relabel.n_cycles=1", _EVENTS)),
    "events-scratch": ("events, from scratch", ("relabel.n_cycles=1", _EVENTS, _SCRATCH)),
}


def run_cycles(
    place: Place,
    tag: str,
    sounds: Path,
    runner: Callable[[list[str], Path], None] = run_command,
) -> None:
    """Go on from the first training with the cycles of a tag, unless they are done."""
    folder = place.folder / "exp" / tag
    if (folder / "results.json").is_file():
        return
    print(f"transfer: {tag} on {place.competition.name}, seed {place.seed}", file=sys.stderr)
    if not folder.is_dir():
        shutil.copytree(place.exp, folder)
    settings = CYCLES[tag][1]
    runner(command(place, sounds, *settings, tag=tag, stop=5), place.folder / f"log-{tag}")


def cycles_table(places: Sequence[Place]) -> pd.DataFrame:
    """One row a finished run of `CYCLES`, in their order.

    Columns: `competition, seed, tag`; `submitted`, the cycle handed in; `raw`, LWLRAP of cycle 0
    before, and `lwlrap` of what is handed in after the correction of prevalence; macro average
    precision `ap_first` of cycle 0, `ap_last` of the last cycle and `ap` of what is handed in.
    """
    rows = []
    for tag in CYCLES:
        for place in places:
            folder = place.folder / "exp" / tag
            if (folder / "results.json").is_file():
                rows.append(_row(place, tag, folder))
    return pd.DataFrame(rows)


def _row(place: Place, tag: str, folder: Path) -> dict[str, object]:
    results = read_json(folder / "results.json")
    cycles = {entry["cycle"]: entry["scores"] for entry in results["cycles"]}
    submitted = results["submitted"]["cycle"]
    precision = {cycle: _macro_ap(place, folder, cycle) for cycle in cycles}
    return {
        "competition": place.competition.name,
        "seed": place.seed,
        "tag": tag,
        "submitted": submitted,
        "raw": cycles[0]["test_truth_raw"]["value"],
        "lwlrap": cycles[submitted]["test_truth"]["value"],
        "ap_first": precision[0],
        "ap_last": precision[max(cycles)],
        "ap": precision[submitted],
    }


def _macro_ap(place: Place, folder: Path, cycle: int) -> float:
    """Mean average precision over classes of the test recordings, before any correction."""
    scores, members = load_scores(folder / f"cycle{cycle}" / "test.npz")
    name = str(load_config(folder / "config.yaml").score.test_truth)
    truth = read_truth(place.data / name, scores.recording_ids, scores.labels) > 0
    heard = np.flatnonzero(truth.any(axis=0))
    logit = members["clip_logit"]
    return float(np.mean([average_precision_score(truth[:, k], logit[:, k]) for k in heard]))
