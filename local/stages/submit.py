"""Stage 5: prior correction, submission.csv, events, results.json, report.html."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from local.inference.score_files import load_scores
from local.io.errors import CanopyError
from local.io.files import write_csv, write_json
from local.report.collect import build_report
from local.report.html import write_report
from local.report.ledger import ledger_path, record, run_row
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
from local.stages.experiment import Experiment
from local.stages.places import Run
from local.stages.results import (
    CorrectedTest,
    collect,
    corrected_test,
    cycles_done,
    table_of_cycles,
    train_part,
)
from local.stages.stamps import Stamp
from local.stages.submission import join_submission

log = logging.getLogger("canopy")


def submit(run: Run, recipe: str) -> None:
    """Write what can be handed in, its scores and its report; note the run."""
    experiment = Experiment(run)
    cycles = cycles_done(experiment)
    if not cycles:
        raise CanopyError(f"{run.cycle(0)}: no scores yet; run stages 2 and 3 first")
    stamp = _stamp(experiment, cycles)
    if not stamp.is_done(run.force):
        stamp.clear()
        last = corrected_test(experiment, cycles[-1])
        write_submission(experiment, last)
        results = collect(experiment, cycles, last)
        events = make_events(experiment, cycles[-1], results)
        write_json(run.exp / "results.json", results)
        pages = write_report(run.exp / "report.html", build_report(experiment, results))
        print(table_of_cycles(results))
        if events:
            print(table_of_events(results["events"]))
        written = [run.exp / "submission.csv", run.exp / "results.json", *events]
        stamp.write([*written, *pages])
    ledger = ledger_path(run.exp.parent, recipe)
    record(ledger, run_row(run.exp, recipe, run.config, run.tables))
    log.info("ledger: %s", ledger)
    log.info("submission: %s", run.exp / "submission.csv")
    log.info("report: %s", run.exp / "report.html")


def _stamp(experiment: Experiment, cycles: list[int]) -> Stamp:
    run = experiment.run
    inputs = [run.cycle(cycle) / name for cycle in cycles for name in ("oof.npz", "test.npz")]
    inputs += [run.tables / "events.csv", run.tables / "classes.csv"]
    score = run.config.score
    given = (score.test_truth, score.train_truth, score.test_events, run.config.prior.given)
    optional = [run.datadir / name for name in given if name]
    optional += [run.tables / f"{name}.csv" for name in ("sample_submission", "submission_columns")]
    inputs += [path for path in optional if path.is_file()]
    inputs += experiment.reviewed_paths
    sections = ("prior", "score", "events", "report", "relabel")
    settings = {name: run.config.model_dump(mode="json")[name] for name in sections}
    settings |= experiment.reviewed_settings
    return Stamp(run.exp / "submit.done.json", settings, inputs)


def write_submission(experiment: Experiment, last: CorrectedTest) -> None:
    """Write submission.csv from the test scores of the last cycle and their correction."""
    run = experiment.run
    _, (ids, logit), correction = last
    submission, filled = join_submission(
        run.tables, experiment.tables.labels, ids, logit + correction.shift
    )
    if filled:
        log.warning("%d test recordings were unreadable and got class means", len(filled))
    write_csv(run.exp / "submission.csv", submission, float_format="%.17g")


def make_events(experiment: Experiment, cycle: int, results: dict[str, Any]) -> list[Path]:
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
    grid = RuleGrid.of(settings)
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
    return paths
