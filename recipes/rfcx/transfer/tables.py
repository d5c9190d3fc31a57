"""Every rule on every competition."""

import sys
from collections.abc import Sequence

import pandas as pd

from local.scoring.metrics.lwlrap import lwlrap
from recipes.rfcx.transfer.event_rules import events_table
from recipes.rfcx.transfer.first_training import Place
from recipes.rfcx.transfer.prevalence_rules import prevalence_rules
from recipes.rfcx.transfer.stored_scores import Stored, read_stored


def make_tables(places: Sequence[Place]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ranking and events of all rules, as `page.write_page` takes them."""
    ranking, events = [], []
    for place in places:
        print(f"transfer: {place.competition.name}, seed {place.seed}", file=sys.stderr)
        stored = read_stored(place)
        ranking.append(ranking_table(stored))
        table = events_table(stored)
        events.append(table.assign(competition=stored.name, seed=stored.seed))
    return pd.concat(ranking, ignore_index=True), pd.concat(events, ignore_index=True)


def ranking_table(stored: Stored) -> pd.DataFrame:
    """`competition, seed, rule, lwlrap` of one competition."""
    rows = [
        (stored.name, stored.seed, name, lwlrap(stored.truth, stored.test_clip + rule(stored)))
        for name, rule in prevalence_rules().items()
    ]
    return pd.DataFrame(rows, columns=["competition", "seed", "rule", "lwlrap"])
