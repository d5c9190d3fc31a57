"""From the runs of a blend to one set of scores, its prior correction and the record of it."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from local.detect.ensemble.averaging import Fit, blend, cross_fit, read_weights
from local.detect.ensemble.members import Member
from local.inference.scores import Scores
from local.io.errors import CanopyError
from local.io.seeds import generator
from local.relabel.correction import Correction, prior_correction
from local.scoring.known_labels import known_positives, score_against, score_known
from local.scoring.metrics.clip_metrics import paired_difference_interval
from local.stages.evidence import fold_evidence
from local.stages.run_record import environment_record

log = logging.getLogger("canopy")


@dataclass(frozen=True)
class Blend:
    """What a blend gives: scores with their clip logits (N, C), the correction, a record.

    The clip logits are those before the prior correction, as in a run's own files.
    """

    oof: tuple[Scores, np.ndarray]
    test: tuple[Scores, np.ndarray]
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
    labels = _Labels.of(like, aligned(members, "oof")[0][0].recording_ids)
    clips = aligned(members, "oof")[1]
    fit = _fit(like, labels, clips, method) if weighting == "fit" else None
    weights = fit.weights if fit else read_weights(weighting, len(members))
    reason = grids_differ(members)
    if reason is not None:
        log.warning("scores over time are left out: %s", reason)
    oof = _blend_kind(members, "oof", weights, method, reason is None)
    test = _blend_kind(members, "test", weights, method, reason is None)
    correction = _correct(members, like, weights, test[1])
    config = like.experiment.run.config
    record = {
        "method": method,
        "weighting": weighting,
        "metric": config.score.metric,
        "settings_of": like.name,
        "frames": "kept" if reason is None else f"left out: {reason}",
        "members": _member_records(members, labels, clips, weights),
        "oof": labels.score(*oof),
        **_comparisons(members, labels, clips, oof[1], fit, method),
        "prior": {
            "method": config.prior.method,
            "source": correction.source,
            "target": correction.target,
            "shift": correction.shift,
        },
        "run": environment_record(config, "cpu"),
    }
    return Blend(oof, test, correction, record)


# -------------------------------------------------------------------------------- one of all parts


def aligned(members: list[Member], kind: str) -> tuple[list[Scores], list[np.ndarray]]:
    """Scores ("oof" or "test") of all members in the first's order of recordings; clip logits."""
    names = members[0].scores(kind)[0].recording_ids
    scores, clips = [], []
    for member in members:
        own, clip = member.scores(kind)
        row = {name: index for index, name in enumerate(own.recording_ids)}
        scores.append(own.take(names))
        clips.append(clip[[row[name] for name in names]])
    return scores, clips


def grids_differ(members: list[Member]) -> str | None:
    """Why the scores over time cannot be blended; None when they can."""
    for kind in ("oof", "test"):
        parts, _ = aligned(members, kind)
        first = parts[0]
        for member, other in zip(members, parts, strict=True):
            if not other.frames:
                return f"{member.name} keeps none (inference.keep_frames)"
            if (other.hop_s, other.start_s) != (first.hop_s, first.start_s):
                steps = f"{first.hop_s:g} s and {other.hop_s:g} s"
                return f"time steps of {members[0].name} and {member.name} differ ({steps})"
            if any(a.shape != b.shape for a, b in zip(first.frames, other.frames, strict=True)):
                return f"{members[0].name} and {member.name} differ in numbers of time steps"
    return None


def _blend_kind(
    members: list[Member], kind: str, weights: np.ndarray, method: str, with_frames: bool
) -> tuple[Scores, np.ndarray]:
    """Clip, window and, where wanted, frame scores, each blended among its own kind."""
    parts, clips = aligned(members, kind)
    first = parts[0]
    window = blend([part.window for part in parts], weights, method)
    frames: list[np.ndarray] = []
    if with_frames:
        lengths = [array.shape[1] for array in first.frames]
        rows = [np.concatenate(part.frames, axis=1).T for part in parts]
        mixed = blend(rows, weights, method).T.astype(np.float32)
        frames = np.split(mixed, np.cumsum(lengths)[:-1], axis=1)
    hop_s, start_s = (first.hop_s, first.start_s) if with_frames else (0.0, 0.0)
    scores = Scores(first.recording_ids, first.labels, frames, window, hop_s, start_s)
    return scores, blend(clips, weights, method)


def _correct(
    members: list[Member], like: Member, weights: np.ndarray, test_logit: np.ndarray
) -> Correction:
    config, evidence = like.experiment.run.config, []
    if config.prior.method == "estimated":
        for member, weight in zip(members, weights, strict=True):
            if weight > 0:
                evidence += fold_evidence(member.experiment, member.cycle)
    tables, datadir = like.experiment.known_tables, like.experiment.run.datadir
    return prior_correction(tables, test_logit, config, datadir, evidence)


# ----------------------------------------------------------------------------------- known labels


@dataclass(frozen=True)
class _Labels:
    """Known positives of the train recordings, in the rows of the blended out-of-fold scores."""

    member: Member
    train: np.ndarray  # (N,) bool
    truth: np.ndarray  # (N, C), 0 outside train

    @staticmethod
    def of(like: Member, recording_ids: list[str]) -> "_Labels":
        tables = like.experiment.tables
        in_train = set(tables.subset("train")["recording_id"])
        train = np.array([name in in_train for name in recording_ids])
        truth = known_positives(tables.events, recording_ids, tables.labels)
        return _Labels(like, train, truth * train[:, None])

    def score(self, scores: Scores, clip: np.ndarray) -> dict[str, Any]:
        """As stage 5 scores `oof_known`."""
        rows = np.flatnonzero(self.train)
        experiment = self.member.experiment
        names = [scores.recording_ids[row] for row in rows]
        found = score_known(
            scores.take(names), clip[rows], experiment.tables.events, experiment.run.config
        )
        return found

    def score_clips(self, clip: np.ndarray) -> dict[str, Any]:
        """The ranking metric alone."""
        has = self.truth.any(axis=1)
        config = self.member.experiment.run.config
        return _brief(score_against(self.truth[has], clip[has], config, "known"))


def _brief(score: dict[str, Any]) -> dict[str, Any]:
    names = ("value", "low", "high", "span_auc", "span_auc_low", "span_auc_high", "n")
    return {name: score[name] for name in names if name in score}


def _fit(like: Member, labels: _Labels, clips: list[np.ndarray], method: str) -> Fit:
    if not labels.truth.any():
        raise CanopyError(
            "weights cannot be fitted without a known positive in train; give --weights equal"
        )
    fold_of = like.experiment.fold_of
    names = like.scores("oof")[0].recording_ids
    fold = np.array([fold_of[name] for name in names])
    metric = like.experiment.run.config.score.metric
    return cross_fit(clips, labels.truth, fold, metric, method)


def _member_records(
    members: list[Member], labels: _Labels, clips: list[np.ndarray], weights: np.ndarray
) -> list[dict[str, Any]]:
    parts, _ = aligned(members, "oof")
    return [
        {
            "run": member.name,
            "tag": member.experiment.run.exp.resolve().name,
            "cycle": member.cycle,
            "weight": float(weight),
            "oof": _brief(labels.score(part, clip)),
        }
        for member, part, clip, weight in zip(members, parts, clips, weights, strict=True)
    ]


def _comparisons(
    members: list[Member],
    labels: _Labels,
    clips: list[np.ndarray],
    blended: np.ndarray,
    fit: Fit | None,
    method: str,
) -> dict[str, Any]:
    """The blend against the best member, and fitted weights judged where they were not fitted."""
    values = [labels.score_clips(clip)["value"] for clip in clips]
    best = int(np.argmax(np.nan_to_num(values, nan=-1.0)))
    config = labels.member.experiment.run.config
    has = labels.truth.any(axis=1)
    honest = fit.cross_fitted if fit else blended
    low, high = paired_difference_interval(
        config.score.metric,
        *(labels.truth[has], honest[has], clips[best][has]),
        generator(config.seed, "bootstrap", "known"),
        config.score.n_bootstrap,
    )
    value = labels.score_clips(honest)["value"] - values[best]
    found: dict[str, Any] = {
        "gain_over_best": {"run": members[best].name, "value": value, "low": low, "high": high}
    }
    if fit:
        equal = blend(clips, np.ones(len(clips)), method)
        found["oof_cross_fitted"] = labels.score_clips(honest)
        found["oof_equal_weights"] = labels.score_clips(equal)
        found["weights_without_fold"] = fit.per_fold
    return found
