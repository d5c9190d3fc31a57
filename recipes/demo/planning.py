"""Which classes sound in which recording, and which of the calls are labelled.

Truth follows the skewed prevalence; labels are balanced over (class, song type) pairs, and a
recording has mostly one. Where a rare class does not sound often enough to be labelled, calls of it
are planted in train recordings, as the competition's train set was picked by template hits.
"""

from dataclasses import dataclass, field

import numpy as np

from local.io.errors import CanopyError
from local.io.seeds import generator
from recipes.demo.settings import PUBLISHED_PREVALENCE, DemoSettings

# A generated vector runs from this most common class down to this rarest, both as published.
_MOST_COMMON, _RAREST = 0.92, 0.004
# Share of the train recordings that have a labelled call where no number of labels is given.
_LABELLED_SHARE = 0.875


@dataclass
class RecordingPlan:
    """What a recording will hold. `calls` are (pair, labelled), labelled ones first."""

    recording_id: str
    subset: str
    index: int
    site: int
    calls: list[tuple[int, bool]] = field(default_factory=list)


def class_prevalence(settings: DemoSettings, n_classes: int) -> np.ndarray:
    """Share of recordings that each class sounds in, (n_classes,)."""
    if settings.prevalence is not None:
        if len(settings.prevalence) != n_classes:
            raise CanopyError(
                f"prepare.prevalence has {len(settings.prevalence)} values for {n_classes} classes;"
                " give one for each"
            )
        return np.asarray(settings.prevalence)
    if n_classes == len(PUBLISHED_PREVALENCE) and settings.clips is None:
        return np.asarray(PUBLISHED_PREVALENCE)[settings.species]
    return _skewed(n_classes, generator(settings.seed, "prevalence"))


def _skewed(n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Geometric from very common to rare, about 3.1 (of few classes 0.3 each) a recording."""
    target = min(sum(PUBLISHED_PREVALENCE), 0.3 * n_classes)
    low, high = 0.0, 1.0
    for _ in range(60):
        ratio = (low + high) / 2
        vector = np.maximum(_MOST_COMMON * ratio ** np.arange(n_classes), _RAREST)
        low, high = (ratio, high) if vector.sum() < target else (low, ratio)
    vector[1:] *= np.exp(rng.uniform(-0.2, 0.2, n_classes - 1))
    return rng.permutation(np.clip(vector, _RAREST, _MOST_COMMON))


def make_plans(
    settings: DemoSettings, pairs: list[tuple[int, int]]
) -> tuple[list[RecordingPlan], np.ndarray]:
    """Plans of all recordings (train first), and the prevalence vector they follow.

    `pairs` are the (class, song type) pairs; a plan names them by position.
    """
    n_classes = 1 + max(label for label, _ in pairs)
    prevalence = class_prevalence(settings, n_classes)
    ids = _recording_ids(settings.n_train + settings.n_test, generator(settings.seed, "ids"))
    train_sites = np.arange(settings.n_train_sites)
    n_shared = min(round(settings.shared_sites * settings.n_test_sites), len(train_sites))
    own = len(train_sites) + np.arange(settings.n_test_sites - n_shared)
    test_sites = np.concatenate([train_sites[:n_shared], own])
    train = _draw_subset("train", settings.n_train, ids, train_sites, settings, pairs, prevalence)
    test = _draw_subset(
        "test", settings.n_test, ids[settings.n_train :], test_sites, settings, pairs, prevalence
    )
    _label(train, settings, pairs, prevalence)
    return train + test, prevalence


def _recording_ids(n: int, rng: np.random.Generator) -> list[str]:
    """`n` different ids of nine hexadecimal digits."""
    found: dict[str, None] = {}
    while len(found) < n:
        found[f"{rng.integers(16**9):09x}"] = None
    return list(found)


def _draw_subset(
    subset: str,
    n: int,
    ids: list[str],
    sites: np.ndarray,
    settings: DemoSettings,
    pairs: list[tuple[int, int]],
    prevalence: np.ndarray,
) -> list[RecordingPlan]:
    rng = generator(settings.seed, "plan", subset)
    # A class that sounds in no test recording could not be scored: one at least.
    present = _presence(prevalence, n, 1 if subset == "test" else 0, rng)
    site = rng.permutation(np.resize(sites, n))
    songs = [
        [pair for pair, (label, _) in enumerate(pairs) if label == c]
        for c in range(len(prevalence))
    ]
    further = settings.calls_per_minute * settings.duration_s / 60
    plans = []
    for i in range(n):
        plan = RecordingPlan(ids[i], subset, i, int(site[i]))
        for c in np.flatnonzero(present[i]):
            for _ in range(1 + rng.poisson(further)):
                plan.calls.append((int(rng.choice(songs[c])), False))
        plans.append(plan)
    return plans


def _presence(
    prevalence: np.ndarray, n: int, at_least: int, rng: np.random.Generator
) -> np.ndarray:
    """Which class sounds in which of `n` recordings, (n, classes): rounded counts, no empty row."""
    counts = np.clip(np.round(prevalence * n).astype(int), at_least, n)
    present = np.zeros((n, len(prevalence)), dtype=bool)
    for c, count in enumerate(counts):
        present[rng.permutation(n)[:count], c] = True
    for row in np.flatnonzero(~present.any(axis=1)):
        # The competition has no silent recording: take a class from one that has several.
        crowded = present.sum(axis=1) > 1
        givers = np.argwhere(present & crowded[:, None])
        if len(givers) == 0:
            break
        giver, c = givers[rng.integers(len(givers))]
        present[giver, c], present[row, c] = False, True
    return present


def _label(
    plans: list[RecordingPlan],
    settings: DemoSettings,
    pairs: list[tuple[int, int]],
    prevalence: np.ndarray,
) -> None:
    """Mark the labelled calls of each pair, planting calls where a class is too rare."""
    quota = settings.n_tp_per_class or max(3, round(_LABELLED_SHARE * len(plans) / len(pairs)))
    quotas = [quota] if isinstance(quota, int) else quota
    quotas = quotas * len(pairs) if len(quotas) == 1 else quotas
    if len(quotas) != len(pairs):
        raise CanopyError(
            f"prepare.n_tp_per_class has {len(quotas)} numbers for {len(pairs)} pairs of class and "
            "song type; give one number, or one for each pair"
        )
    if max(quotas) > len(plans):
        raise CanopyError(
            f"prepare.n_tp_per_class is {max(quotas)} but there are {len(plans)} train recordings; "
            "lower it or raise prepare.n_train"
        )
    rng = generator(settings.seed, "labels")
    sites = np.array([plan.site for plan in plans])
    n_labels = np.zeros(len(plans), dtype=int)
    # Rare classes choose first: they are planted anyway, common ones are found everywhere.
    for pair in sorted(range(len(pairs)), key=lambda p: (prevalence[pairs[p][0]], p)):
        mine = np.zeros(len(plans), dtype=bool)
        site_count = np.zeros(sites.max() + 1, dtype=int)
        for _ in range(quotas[pair]):
            sounds = np.array([(pair, False) in plan.calls for plan in plans])
            chosen = _choose(sounds, mine, n_labels, site_count[sites], settings, rng)
            calls = plans[chosen].calls
            if sounds[chosen]:
                calls.remove((pair, False))
            calls.append((pair, True))
            mine[chosen] = True
            n_labels[chosen] += 1
            site_count[sites[chosen]] += 1
    for plan in plans:
        plan.calls.sort(key=lambda call: not call[1])


def _choose(
    sounds: np.ndarray,
    mine: np.ndarray,
    n_labels: np.ndarray,
    site_count: np.ndarray,
    settings: DemoSettings,
    rng: np.random.Generator,
) -> int:
    """The recording that gets the next label: one without any, where the class sounds."""
    if rng.random() < settings.second_label_share:
        again = np.flatnonzero(sounds & (n_labels > 0))
        if len(again):
            return int(rng.choice(again))
    # A second label of the same class only where it sounds twice by itself.
    barred = mine & ~sounds
    order = np.lexsort((rng.random(len(mine)), site_count, ~sounds, n_labels, barred))
    return int(order[0])
