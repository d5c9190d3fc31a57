"""What the results of each stage depend on: the one table that stamps go by.

For every stage: which keys of the configuration matter, which do not, which files it reads, and its
`version`. **Raise the version of a stage whenever its results change** for the same settings and
inputs; tests/local/stages/test_golden.py fails until that is done. A commit alone makes nothing
invalid.

Keys are written `section.key`; a section stands for all keys in it, and the longest name that fits
a key decides. Every key is decided in every stage (tests/local/stages/test_dependencies.py goes
through them all). A key that names a file does not matter itself: the file's content does.

Files are written `PLACE/NAME`; `inputs` finds them. One that need not be there ends in `?`.
"""

from typing import TYPE_CHECKING

from local.config import Config
from local.config.relevance import Dependencies, When

if TYPE_CHECKING:
    from local.models.task_contract import Task

# ------------------------------------------------------------------------------------ conditions


def _has_reviewed(config: Config, _cycle: int) -> bool:
    return bool(config.data.reviewed)


def _draws_stretched(config: Config, _cycle: int) -> bool:
    return config.window.p_stretched > 0


def _selects_by_score(config: Config, _cycle: int) -> bool:
    return config.train.select == "best"


def _is_later_cycle(_config: Config, cycle: int) -> bool:
    return cycle > 0


def _makes_soft(config: Config, _cycle: int) -> bool:
    return config.relabel.kind == "soft"


def _makes_events(config: Config, _cycle: int) -> bool:
    return config.relabel.kind == "events"


def _learns_soft(config: Config, cycle: int) -> bool:
    return _is_later_cycle(config, cycle) and _makes_soft(config, cycle)


def _learns_events(config: Config, cycle: int) -> bool:
    return _is_later_cycle(config, cycle) and _makes_events(config, cycle)


def _may_end(config: Config, cycle: int) -> bool:
    return cycle > 1 and config.relabel.max_fall is not None


def _starts_from_cycle0(config: Config, cycle: int) -> bool:
    return cycle > 0 and config.relabel.start == "cycle0"


def _starts_from_file(config: Config, cycle: int) -> bool:
    return not _starts_from_cycle0(config, cycle)


def _corrects_priors(config: Config, _cycle: int) -> bool:
    return config.prior.method != "none"


def _estimates_priors(config: Config, _cycle: int) -> bool:
    return config.prior.method == "estimated"


def _relabels_by_prior(config: Config, _cycle: int) -> bool:
    bounds = _makes_events(config, _cycle) and config.relabel.prevalence_share is not None
    return config.relabel.use_prior or bounds


def _relabels_by_estimate(config: Config, cycle: int) -> bool:
    return _relabels_by_prior(config, cycle) and _estimates_priors(config, cycle)


def _tunes_events(config: Config, _cycle: int) -> bool:
    return config.events.tune


# -------------------------------------------------------------------------------------- the table

_NOTED = {"seed": "noted in run.json"}
_BY_CONTENT = "a file, known by its content"
_LOOKS_ON = "validation looks on, unless it selects the model"
_ONLY_FASTER = "how much is computed at once"
# What the front end makes of a file is decided by these; the rest of the two sections is not.
_FRONT_END = "audio features"
_NOT_FRONT_END = {
    "audio.max_invalid_share": "only says when stage 0 fails",
    "audio.other_rates": "only says when stage 0 refuses a file",
    "features.keep_wave": "waveforms lie beside features, which stay the same",
    "features.stretches": "folders beside that of the plain features",
}

STAGES = {
    # A recipe says what of these its own preparation reads; it has a version of its own as well.
    "prepare": Dependencies(
        version=1,
        matters="prepare audio.sample_rate split.n_folds",
        unread="""seed task task_params audio features data split window model loss augment train
            inference relabel prior score events report""",
    ),
    # The folder is that of the front end, whose id says what it makes; and of a stretch factor.
    "preprocess": Dependencies(
        version=1,
        matters=_FRONT_END,
        harmless=_NOTED | {"features.stretches": "each has a folder and a stamp of its own"},
        unread="""task task_params prepare data split window model loss augment train inference
            relabel prior score events report""",
        files="tables/recordings.csv",
    ),
    "split": Dependencies(
        version=1,
        matters="seed split",
        unread="""task task_params prepare audio features data window model loss augment train
            inference relabel prior score events report""",
        files="tables/recordings.csv tables/events.csv tables/classes.csv",
    ),
    "train": Dependencies(
        version=1,
        matters=f"task task_params seed {_FRONT_END} data split window model loss augment train",
        harmless=_NOT_FRONT_END
        | {
            "data.short_calls": "only says when training is refused",
            "train.n_workers": "processes that read ahead",
            "train.max_bad_steps": "only says when training fails",
            "train.save_minutes": "how often the state is saved",
            "train.validate_every": _LOOKS_ON,
            "inference": _LOOKS_ON,
            "inference.batch_size": _ONLY_FASTER,
            "inference.keep_frames": "validation keeps no scores",
            "score": _LOOKS_ON,
            "events": _LOOKS_ON,
            "relabel": "rules of events, by which validation looks on",
            "data.reviewed": _BY_CONTENT,
            "data.reviewed_subsets": "there are no reviewed rows",
            "model.init": _BY_CONTENT,
            "model.params.weights": _BY_CONTENT,
        },
        unread="prepare prior report",
        files="""tables/recordings.csv tables/events.csv tables/classes.csv features/manifest.csv
            exp/folds.csv""",
        when=(
            When(_has_reviewed, "data.reviewed_subsets", "key/data.reviewed"),
            When(_draws_stretched, "features.stretches", "stretched/manifest.csv"),
            When(
                _selects_by_score,
                "train.validate_every inference score.metric",
                "stretched-views/manifest.csv",
            ),
            When(_is_later_cycle, "relabel.start relabel.drop_path"),
            When(_learns_events, files="cycle/pseudo_events.csv"),
            When(
                _learns_soft,
                "relabel.pseudo_mixup relabel.pseudo_mixup_kind",
                "cycle/soft_labels.npz cycle/soft_recordings.csv",
            ),
            When(_starts_from_cycle0, files="cycle0-fold/best.pt"),
            When(_starts_from_file, files="key/model.init key/model.params.weights"),
        ),
    ),
    # Scores of windows and their stitching; `inference.pool` comes after.
    "infer": Dependencies(
        version=1,
        matters=f"""task task_params {_FRONT_END} inference window.length_s window.short
            window.whole""",
        harmless=_NOTED
        | _NOT_FRONT_END
        | {
            "inference.batch_size": _ONLY_FASTER,
            "inference.pool": "scores of recordings are made anew when folds are merged",
            "inference.keep_frames": "each fold keeps its own",
            "model": "what the weights were made of, see best.pt",
            "relabel.start": "see seen.csv",
        },
        unread="prepare data split window loss augment train relabel prior score events report",
        files="""fold/best.pt seen/seen.csv tables/recordings.csv tables/classes.csv
            features/manifest.csv stretched-views/manifest.csv""",
    ),
    "merge": Dependencies(
        version=1,
        matters="task task_params split.n_folds inference.pool inference.keep_frames",
        harmless=_NOTED
        | {
            "audio": "see scores.npz",
            "features": "see scores.npz",
            "model": "what the weights were made of, see seen.csv",
            "relabel.start": "see seen.csv",
        },
        unread="""prepare data split window loss augment train inference relabel prior score events
            report""",
        files="""folds/scores.npz seen-folds/seen.csv tables/recordings.csv tables/classes.csv
            features/manifest.csv""",
    ),
    # Also what the report shows. Sounds are not compared.
    "submit": Dependencies(
        version=4,
        matters=f"""task task_params seed {_FRONT_END} data split.n_folds window.length_s model.name
            prior.method score events.tune report relabel.threshold relabel.low_threshold
            relabel.min_duration_s relabel.max_gap_s""",
        harmless=_NOT_FRONT_END
        | {
            "data.short_calls": "only says when training is refused",
            "data.reviewed": _BY_CONTENT,
            "data.reviewed_subsets": "there are no reviewed rows",
            "prior": "priors are not corrected",
            "prior.given": _BY_CONTENT,
            "score.test_truth": _BY_CONTENT,
            "score.train_truth": _BY_CONTENT,
            "score.test_events": _BY_CONTENT,
            "relabel.n_cycles": "the cycles that are done count",
            "relabel": "see pseudo_events.csv",
            "model": "what the weights were made of, see seen.csv",
            "inference.pool": "see oof.npz, unless prevalence is estimated",
        },
        unread="prepare split window loss augment train inference events",
        files="""tables/recordings.csv tables/events.csv tables/classes.csv
            tables/sample_submission.csv? tables/submission_columns.csv? features/manifest.csv
            exp/folds.csv cycles/oof.npz cycles/test.npz next/ended.json?
            cycles-folds/scores.npz? cycles-folds/log.csv?
            key/score.test_truth? key/score.train_truth? key/score.test_events?""",
        when=(
            When(_has_reviewed, "data.reviewed_subsets", "key/data.reviewed"),
            When(_corrects_priors, "prior", "key/prior.given"),
            When(
                _estimates_priors,
                "inference.pool",
                "cycles-seen-folds/seen.csv? cycles-folds/inserted.npz?",
            ),
            When(_tunes_events, "events"),
            When(_makes_events, files="later-cycles/pseudo_events.csv"),
            When(_makes_soft, files="later-cycles/pseudo_summary.csv"),
        ),
    ),
    # Calls inserted in test recordings, where prevalence is estimated with them.
    "further": Dependencies(
        version=1,
        matters=f"""task task_params seed {_FRONT_END} window.length_s window.short window.whole
            inference.window_s inference.window_frames inference.pool prior.n_insertions""",
        harmless=_NOT_FRONT_END
        | {
            "inference.batch_size": _ONLY_FASTER,
            "model": "what the weights were made of, see best.pt",
            "prior": "only says whether calls are inserted",
            "split": "see folds.csv",
            "relabel.start": "see seen.csv",
        },
        unread="prepare data window loss augment train inference relabel score events report",
        files="""fold/best.pt fold/scores.npz seen/seen.csv tables/recordings.csv
            tables/events.csv tables/classes.csv features/manifest.csv exp/folds.csv""",
    ),
    # Labels of a cycle from the scores of the one before it.
    "relabel": Dependencies(
        version=3,
        matters="""task task_params split.n_folds relabel.kind relabel.subsets relabel.weight
            relabel.use_prior""",
        harmless=_NOTED
        | {
            "relabel": "of the other kind of labels",
            "relabel.n_cycles": "each cycle has a stamp of its own",
            "relabel.start": "see seen.csv",
            "data.reviewed": _BY_CONTENT,
            "data.reviewed_subsets": "there are no reviewed rows",
            "prior.given": _BY_CONTENT,
            "model": "what the weights were made of, see seen.csv",
            "audio": "see oof.npz",
            "features": "see oof.npz",
        },
        unread="""prepare data split window loss augment train inference prior score events
            report""",
        files="""before/oof.npz before-seen-folds/seen.csv tables/recordings.csv
            tables/events.csv tables/classes.csv features/manifest.csv""",
        when=(
            When(_has_reviewed, "data.reviewed_subsets", "key/data.reviewed"),
            When(_may_end, "relabel.max_fall score.metric data.annotation", "earlier/oof.npz"),
            When(_makes_soft, "relabel.power"),
            When(
                _makes_events,
                """relabel.threshold relabel.low_threshold relabel.min_duration_s relabel.max_gap_s
                relabel.negative_below relabel.prevalence_share relabel.max_per_confirmed""",
            ),
            When(_relabels_by_prior, "prior data.annotation", "before/test.npz key/prior.given"),
            When(
                _relabels_by_estimate,
                "inference.pool",
                "exp/folds.csv before-folds/scores.npz? before-folds/inserted.npz?",
            ),
        ),
    ),
}


def dependencies(task: "Task") -> dict[str, Dependencies]:
    """What each stage depends on, by the name of the stage; a task's own entries come first."""
    return {**STAGES, **task.dependencies}
