"""The model card: what a published model is, what it was trained on, and how well it does."""

from typing import Any

import numpy as np
import pandas as pd

from local import __version__
from local.detect.ensemble.members import Member
from local.features.front_ends.front_end_registry import front_end_of
from local.io.files import read_json
from local.scoring.event_rules.evidence import Evidence
from local.scoring.event_rules.thresholds import ThresholdChoice, fit_thresholds
from local.scoring.known_labels import known_rows
from local.tasks.detection_results import SCORE_TITLES, metric_title

LICENCE_TEXT = """\
No licence has been chosen for this model yet.

Whoever publishes it must replace this text by the licence of the weights, having checked that the
licences of the recordings and annotations behind them allow it, and then renew the checksums:

    sha256sum *.json *.safetensors *.onnx README.md LICENSE.txt > SHA256SUMS
"""


def model_card(member: Member, evidence: Evidence | None, names: list[str]) -> str:
    """Markdown of the card."""
    run = member.experiment.run
    parts = [
        f"# {run.exp.resolve().name}: a detector of {len(member.experiment.tables.labels)} classes",
        _summary(member, names),
        "## Use\n\n"
        "    bin/detect.py THIS_FOLDER RECORDINGS --out DETECTIONS\n\n"
        "The `.onnx` files run by themselves in ONNX Runtime: `waveform` (batch, samples) of one "
        f"channel at {run.config.audio.sample_rate} Hz, within -1 to 1, in; `frame_logit` (batch, "
        "class, cell) and `clip_logit` (batch, class) out. `model.json` lists classes, front end "
        "and windows. Average several folds as probabilities.",
        "## Intended use\n\nFinding candidate calls of the classes below in passive acoustic "
        "recordings like those it was trained on, for people to look at. Scores are not calibrated "
        "for other sites, seasons or recorders; check a sample by ear before counting. Not meant "
        "for decisions about single individuals or for recordings of people.",
        "## Licence\n\nTo be filled in by who publishes this model: see `LICENSE.txt`.",
        "## Scores\n\n" + _scores(member),
        "## Data\n\n" + _data(member),
        "## Classes\n\n" + _classes(member, evidence),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(member: Member, names: list[str]) -> str:
    config = member.experiment.run.config
    front = front_end_of(config).describe()
    n_networks = sum(name.endswith(".safetensors") for name in names)
    return (
        f"- networks: {n_networks} of `{config.model.name}` (one a fold; their mean in probability "
        f"is the model)\n"
        f"- input: one channel at {config.audio.sample_rate} Hz; {front}\n"
        f"- windows of {config.window.length_s:g} s in training\n"
        f"- cycle of relabelling: {member.cycle}\n"
        f"- made with Canopy {__version__}, recipe `{member.recipe}`"
    )


def _scores(member: Member) -> str:
    path = member.experiment.run.exp / "results.json"
    if not path.is_file():
        return "None were computed: the run had not been submitted when it was published."
    results = read_json(path)
    cycle = next((one for one in results["cycles"] if one["cycle"] == member.cycle), None)
    if cycle is None:
        return "None were computed for this cycle."
    rows = [
        (
            SCORE_TITLES.get(name, name),
            metric_title(results),
            _number(score["value"]),
            f"{_number(score['low'])} to {_number(score['high'])}",
            _number(score["chance"]),
        )
        for name, score in cycle["scores"].items()
    ]
    known = cycle["scores"].get("oof_known", {})
    if known.get("span_auc") is not None:
        interval = f"{_number(known['span_auc_low'])} to {_number(known['span_auc_high'])}"
        title = "out-of-fold, confirmed against rejected spans"
        rows.append((title, "AUROC", _number(known["span_auc"]), interval, "0.500"))
    head = ("what", "measure", "value", "95 % interval over recordings", "chance")
    return _table([head, *rows])


def _data(member: Member) -> str:
    tables = member.experiment.tables
    recordings, events = tables.recordings, known_rows(tables.events)
    by_subset = recordings.groupby("subset")
    rows: list[tuple[str, ...]] = [("subset", "recordings", "hours", "groups")]
    rows += [
        (
            str(subset),
            str(len(part)),
            f"{part['duration'].sum() / 3600:.2f}",
            str(part["group"].nunique()),
        )
        for subset, part in by_subset
    ]
    annotation = member.experiment.run.config.data.annotation
    meaning = (
        "what has no row is absent" if annotation == "complete" else "what has no row is unknown"
    )
    n_positive, n_negative = (events["polarity"] > 0).sum(), (events["polarity"] < 0).sum()
    return (
        f"{_table(rows)}\n\n{n_positive} confirmed and {n_negative} rejected spans by people; "
        f"annotations are {annotation}: {meaning}. Folds keep groups together."
    )


def _classes(member: Member, evidence: Evidence | None) -> str:
    tables = member.experiment.tables
    events = known_rows(tables.events)
    counts = events.groupby(["label", events["polarity"] > 0]).size()
    fitted = None
    if evidence is not None:
        fitted = fit_thresholds(tables.labels, ThresholdChoice("best-f1"), evidence).set_index(
            "label"
        )
    rows: list[tuple[str, ...]] = [
        ("class", "name", "confirmed", "rejected", "threshold", "precision", "recall", "alarms/h")
    ]
    for label, name in zip(tables.classes["label"], tables.classes["name"], strict=True):
        worth = ["-"] * 4
        if fitted is not None:
            keys = ("threshold", "precision", "recall", "false_alarms_per_hour")
            worth = [_number(fitted.at[label, key]) for key in keys]
        numbers = [str(int(counts.get((label, sign), 0))) for sign in (True, False)]
        rows.append((str(label), _cell(name), *numbers, *worth))
    return (
        f"{_table(rows)}\n\nThresholds are those of `--threshold best-f1`; "
        "precision and recall count those spans, alarms count detections outside confirmed spans "
        "(an upper bound where annotations are partial)."
    )


def _cell(value: Any) -> str:
    return "" if pd.isna(value) else str(value).replace("|", "\\|").replace("\n", " ")


def _number(value: Any) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _table(rows: list[tuple[str, ...]]) -> str:
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
