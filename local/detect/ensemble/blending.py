"""From the runs of a blend to one set of scores, its prior correction and the record of it."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from local.detect.ensemble.averaging import blend, cross_fit, read_weights
from local.detect.ensemble.members import Member
from local.inference.score_files import save_scores
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.files import write_json
from local.io.seeds import generator
from local.relabel.prior_correction import Correction, prior_correction
from local.scoring.known_labels import known_positives, score_known
from local.scoring.metrics.clip_metrics import paired_difference_interval
from local.stages.run_record import environment_record
from local.tasks.detection_evidence import fold_evidence
from local.tasks.submission_csv import write_submission

log = logging.getLogger("canopy")

_NUMBERS = ("value", "low", "high", "span_auc", "span_auc_low", "span_auc_high", "n")
# Scores and their clip logits (N, C).
Scored = tuple[Scores, np.ndarray]


@dataclass(frozen=True)
class Blend:
    """What a blend gives: scores with their clip logits (N, C), the correction, a record.

    The clip logits are those before the prior correction, as in a run's own files.
    """

    oof: Scored
    test: Scored
    correction: Correction
    record: dict[str, Any]


def blend_members(members: list[Member], like: Member, method: str, weighting: str) -> Blend:
    """Blend runs that `members.check_alike` let pass.

    The members' logits are blended as they are; the prior correction is done once, on the blend, by
    the function and with the settings of stage 5. Its out-of-fold evidence is that of every run
    with a weight, each on the scale of its own models.

    Parameters
    ----------
    like : the run whose sections `prior` and `score` hold, and whose folds cross-fitting uses.
    weighting : "equal", "fit" or numbers such as "1,2,1".
    """
    parts = _in_one_order([member.oof for member in members])
    tests = _in_one_order([member.test for member in members])
    clips = [clip for _, clip in parts]
    experiment, names = like.experiment, parts[0][0].recording_ids
    config, tables = experiment.run.config, experiment.tables
    train = np.isin(names, tables.subset("train")["recording_id"])
    truth = known_positives(tables.events, names, tables.labels) * train[:, None]

    def known(scores: Scores, clip: np.ndarray) -> dict[str, Any]:
        """As stage 5 scores `oof_known`."""
        own = scores.take([name for name, mine in zip(names, train, strict=True) if mine])
        found = score_known(own, clip[train], tables.events, config)
        return {name: found[name] for name in _NUMBERS if name in found}

    fit = None
    if weighting == "fit":
        if not truth.any():
            raise CanopyError(
                "weights cannot be fitted without a known positive in train; give --weights equal"
            )
        fold = np.array([experiment.fold_of[name] for name in names])
        fit = cross_fit(clips, truth, fold, config.score.metric, method)
    weights = fit.weights if fit else read_weights(weighting, len(members))
    reason = grids_differ(members, parts) or grids_differ(members, tests)
    if reason:
        log.warning("scores over time are left out: %s", reason)
    oof, test = (_blended(each, weights, method, not reason) for each in (parts, tests))
    record: dict[str, Any] = {
        "method": method,
        "weighting": weighting,
        "metric": config.score.metric,
        "settings_of": like.name,
        "frames": f"left out: {reason}" if reason else "kept",
        "members": [
            {
                "run": member.name,
                "tag": member.experiment.run.exp.resolve().name,
                "cycle": member.cycle,
                "weight": float(weight),
                "oof": known(*part),
            }
            for member, part, weight in zip(members, parts, weights, strict=True)
        ],
        "oof": known(*oof),
    }
    # Fitted weights are judged where they were not fitted.
    honest, honest_score = oof[1], record["oof"]
    if fit:
        bare = replace(oof[0], frames=[])
        honest, honest_score = fit.cross_fitted, known(bare, fit.cross_fitted)
        record["oof_cross_fitted"] = honest_score
        record["oof_equal_weights"] = known(bare, blend(clips, np.ones(len(clips)), method))
        record["weights_without_fold"] = fit.per_fold
    values = [one["oof"]["value"] for one in record["members"]]
    best = int(np.argmax(np.nan_to_num(values, nan=-1.0)))
    counted = train & (truth.any(axis=1) | (config.data.annotation == "complete"))
    rng = generator(config.seed, "bootstrap", "known")
    low, high = paired_difference_interval(
        *(config.score.metric, truth[counted], honest[counted], clips[best][counted]),
        *(rng, config.score.n_bootstrap),
    )
    gain = honest_score["value"] - values[best]
    record["gain_over_best"] = {"run": members[best].name, "value": gain, "low": low, "high": high}
    correction = _correct(members, like, weights, test[1])
    record["prior"] = {"method": config.prior.method, **vars(correction)}
    record["run"] = environment_record(config, "cpu")
    return Blend(oof, test, correction, record)


def _in_one_order(parts: list[Scored]) -> list[Scored]:
    """All in the first's order of recordings."""
    names = parts[0][0].recording_ids
    ordered = []
    for scores, clip in parts:
        row = {name: index for index, name in enumerate(scores.recording_ids)}
        ordered.append((scores.take(names), clip[[row[name] for name in names]]))
    return ordered


def grids_differ(members: list[Member], parts: list[Scored]) -> str | None:
    """Why the scores over time cannot be blended; None when they can."""
    first = parts[0][0]
    for member, (other, _) in zip(members, parts, strict=True):
        if not other.frames:
            return f"{member.name} keeps none (inference.keep_frames)"
        if (other.hop_s, other.start_s) != (first.hop_s, first.start_s):
            steps = f"{first.hop_s:g} s and {other.hop_s:g} s"
            return f"time steps of {members[0].name} and {member.name} differ ({steps})"
        if any(a.shape != b.shape for a, b in zip(first.frames, other.frames, strict=True)):
            return f"{members[0].name} and {member.name} differ in numbers of time steps"
    return None


def _blended(parts: list[Scored], weights: np.ndarray, method: str, with_frames: bool) -> Scored:
    """Clip, window and, where wanted, frame scores, each blended among its own kind."""
    first = parts[0][0]
    window = blend([scores.window for scores, _ in parts], weights, method)
    frames, hop_s, start_s = [], 0.0, 0.0
    if with_frames:
        hop_s, start_s = first.hop_s, first.start_s
        borders = np.cumsum([array.shape[1] for array in first.frames])[:-1]
        rows = [np.concatenate(scores.frames, axis=1).T for scores, _ in parts]
        frames = np.split(blend(rows, weights, method).T.astype(np.float32), borders, axis=1)
    scores = Scores(first.recording_ids, first.labels, frames, window, hop_s, start_s)
    return scores, blend([clip for _, clip in parts], weights, method)


def _correct(
    members: list[Member], like: Member, weights: np.ndarray, test_logit: np.ndarray
) -> Correction:
    run, evidence = like.experiment.run, []
    if run.config.prior.method == "estimated":
        for member, weight in zip(members, weights, strict=True):
            if weight > 0:
                evidence += fold_evidence(member.experiment, member.cycle)
    labels = like.experiment.tables.labels
    return prior_correction(labels, test_logit, run.config, run.datadir, evidence)


def write_blend(out: Path, blended: Blend, like: Member) -> None:
    """Write oof.npz, test.npz, submission.csv and blend.json."""
    test, logit = blended.test
    for name, (scores, clip) in (("oof", blended.oof), ("test", blended.test)):
        save_scores(out / f"{name}.npz", scores, clip, keep_frames=bool(scores.frames))
    write_submission(
        *(out, like.experiment.run.tables, test.labels, test.recording_ids),
        logit + blended.correction.shift,
    )
    write_json(out / "blend.json", blended.record)


def blend_table(record: dict[str, Any]) -> str:
    """Members and blend for the terminal: weight, cycle, out-of-fold score with interval."""
    rows = [
        (one["tag"], f"{one['weight']:.3f}", one["cycle"], one["oof"]) for one in record["members"]
    ]
    rows.append((f"blend ({record['method']})", "", "", record["oof"]))
    for key in ("oof_cross_fitted", "oof_equal_weights"):
        if key in record:
            title = key.removeprefix("oof_").replace("_", " ")
            rows.append((f"blend, {title}", "", "", record[key]))
    table = pd.DataFrame(
        {
            "run": name,
            "weight": weight,
            "cycle": cycle,
            record["metric"]: f"{score['value']:.4f}",
            "95 % interval": f"{score['low']:.3f}-{score['high']:.3f}",
            "span AUC": f"{score['span_auc']:.4f}" if "span_auc" in score else "",
        }
        for name, weight, cycle, score in rows
    )
    gain = record["gain_over_best"]
    return (
        f"{table.to_string(index=False)}\nblend{', cross fitted' * ('oof_cross_fitted' in record)} "
        f"against {gain['run']}: {gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"
    )
