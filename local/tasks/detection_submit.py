"""What detection hands in: submission.csv, the scores of every cycle, events by a fitted rule."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from local.data.annotated import Annotated
from local.inference.score_files import load_scores
from local.models.task_contract import Submission
from local.scoring.event_rules.event_measures import measure_events
from local.scoring.event_rules.rule_file import RULE
from local.scoring.event_rules.tuning import (
    OOF_EVENTS,
    TEST_EVENTS,
    RuleGrid,
    table_of_events,
    tune,
    write_events,
)
from local.tasks.detection_events import (
    MadeEvents,
    figures_of,
    score_events,
    table_of_figures,
)
from local.tasks.detection_results import (
    collect,
    corrected_test,
    table_of_cycles,
    train_part,
)
from local.tasks.detection_rounds import choose_cycle
from local.tasks.submission_csv import write_submission

if TYPE_CHECKING:
    from local.models.task_contract import Experiment

log = logging.getLogger("canopy")


def submit(experiment: "Experiment", cycles: list[int]) -> Submission:
    """Write what can be handed in of the best cycle by out-of-fold evidence, and score all."""
    run = experiment.run
    corrected = {}
    for cycle in cycles:
        scores, test, found = corrected_test(experiment, cycle)
        # Scores over time of all cycles together may be more than memory holds.
        corrected[cycle] = (scores.take([]), test, found)
    results = collect(experiment, cycles, corrected)
    further = cycles[-1] + 1
    asked_for = further <= run.config.relabel.n_cycles
    chosen = choose_cycle(results, run.config, experiment.ended(further) if asked_for else "")
    results["submitted"] = chosen
    log.info("%s", chosen["words"])
    _, (ids, logit), correction = corrected[chosen["cycle"]]
    submission = write_submission(
        run.exp, run.tables, experiment.tables.labels, ids, logit + correction.shift
    )
    events = make_events(experiment, chosen["cycle"], results)
    events += score_events(experiment, chosen["cycle"], results)
    tables = [table_of_cycles(results), chosen["words"], table_of_figures(results)]
    if "events" in results:
        tables.append(table_of_events(results["events"]))
    table = "\n".join(one for one in tables if one)
    return Submission(results, list(dict.fromkeys([submission, *events])), table)


def make_events(experiment: "Experiment", cycle: int, results: dict[str, Any]) -> list[Path]:
    """Fit the rule of events and add what it reached to the results; files that were written."""
    run = experiment.run
    paths = [run.exp / name for name in (RULE, OOF_EVENTS, TEST_EVENTS)]
    for path in paths:
        # Of scores or settings that are no more.
        path.unlink(missing_ok=True)
    settings = run.config.events
    if not settings.tune:
        return []
    fold = pd.Series(experiment.fold_of)
    oof, _ = train_part(experiment, cycle)
    grid = RuleGrid.of(settings, Annotated.of(experiment.tables))
    tuned = tune(oof, experiment.tables.events, fold, grid, settings.ious, settings.copies)
    test, _ = load_scores(run.cycle(cycle) / "test.npz")
    made_from = run.cycle(cycle) / "oof.npz"
    n_resamples = run.config.score.n_bootstrap
    told = write_events(
        run.exp, tuned, test, settings.ious, made_from, n_resamples, run.config.seed
    )
    measures = measure_events(
        oof.take(tuned.names),
        experiment.tables.events,
        tuned.events,
        settings,
        n_resamples,
        run.config.seed,
    )
    results["events"] = {"cycle": cycle, **told, "measures": measures}
    made = MadeEvents(oof.take(tuned.names), tuned.events)
    figures = figures_of(experiment, experiment.tables.events, made)
    submitted = next(one for one in results["cycles"] if one["cycle"] == cycle)
    submitted.setdefault("events", {})["oof_events"] = figures
    return paths
