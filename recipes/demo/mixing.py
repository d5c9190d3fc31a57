"""One recording: background, calls at their drawn levels, true boxes, look-alikes."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from local.io.seeds import generator
from recipes.demo.backgrounds import rain, tilted
from recipes.demo.calls import Call
from recipes.demo.lookalikes import FrontEnd, Matcher, Template
from recipes.demo.planning import RecordingPlan
from recipes.demo.settings import DemoSettings

# Levels of calls over the noise stay within these, however wide the spread.
_SNR_RANGE_DB = (-6.0, 25.0)
# A caller keeps its distance: its calls differ by this much (standard deviation).
_CALL_SPREAD_DB = 1.5
_GAP_S = 0.05
_TRIES = 50


class Voices(Protocol):
    """Where calls and backgrounds come from: synthesis or folders of clips."""

    pairs: list[tuple[int, int]]
    names: list[str]

    def caller(self, pair: int, subset: str, site: int, rng: np.random.Generator) -> object:
        """An individual of the pair's class, as it is heard at that site of that side."""

    def call(self, pair: int, caller: object, rng: np.random.Generator) -> Call:
        """One call of that individual."""

    def decoy(self, rng: np.random.Generator) -> Call | None:
        """A call of no class that resembles one, if such can be made."""

    def background(self, site: int, subset: str, rng: np.random.Generator) -> np.ndarray:
        """A recording's length of background at a site, float32."""

    def examples(self, pair: int) -> list[Call]:
        """Clean calls to make the pair's template from (never of the test side)."""


@dataclass(frozen=True)
class Event:
    """A true call: its box in seconds and hertz, its level over the noise in that box."""

    pair: int
    onset: float
    offset: float
    low: float
    high: float
    snr_db: float
    labelled: bool


@dataclass(frozen=True)
class Mix:
    """A rendered recording. `candidates` are look-alikes (pair, onset, score)."""

    samples: np.ndarray  # int16
    events: list[Event]
    candidates: list[tuple[int, float, float]]


def mix_recording(
    plan: RecordingPlan,
    voices: Voices,
    templates: list[Template],
    front: FrontEnd,
    settings: DemoSettings,
) -> Mix:
    """Render the recording that `plan` describes; the same plan gives the same samples."""
    rng = generator(settings.seed, "recording", plan.subset, plan.index)
    wave = voices.background(plan.site, plan.subset, rng)
    if plan.subset == "test":
        _rain_on(wave, plan, settings)
    noise = front.power(wave)
    events = _place_calls(wave, noise, plan, voices, front, settings, rng)
    _place_decoys(wave, noise, voices, front, settings, rng)
    if plan.subset == "test" and settings.test_slope_db:
        wave = tilted(wave, settings.sample_rate, settings.test_slope_db)
    peak = float(np.max(np.abs(wave)))
    if peak > 0.98:
        wave *= np.float32(0.98 / peak)
    samples = np.round(wave * 32767).astype(np.int16)
    candidates = []
    if plan.subset == "train" and settings.fp_ratio > 0:
        matcher = Matcher(front.power(samples / np.float32(32767)), front, settings.duration_s)
        candidates = _candidates(matcher, events, voices.pairs, templates)
    return Mix(samples, events, candidates)


def _rain_on(wave: np.ndarray, plan: RecordingPlan, settings: DemoSettings) -> None:
    """In place, further rain, some 3 dB below to 3 dB above all that was there."""
    # Its own generator: what else is drawn stays as it is without rain.
    rng = generator(settings.seed, "rain", plan.index)
    if rng.random() < settings.test_rain:
        level = np.sqrt(np.mean(wave**2, dtype=np.float64)) * 10 ** (rng.uniform(-3, 3) / 20)
        wave += np.float32(level) * rain(len(wave), settings.sample_rate, rng)


def _place_calls(
    wave: np.ndarray,
    noise: np.ndarray,
    plan: RecordingPlan,
    voices: Voices,
    front: FrontEnd,
    settings: DemoSettings,
    rng: np.random.Generator,
) -> list[Event]:
    """Add the planned calls to `wave` in place. Calls of one class never overlap each other.

    A call that finds no room among those of its class is left out; the first of a class always
    finds some, because no call is longer than the recording.
    """
    callers: dict[int, tuple[object, float]] = {}
    taken: dict[int, list[tuple[float, float]]] = {}
    events = []
    for pair, labelled in plan.calls:
        if pair not in callers:
            individual = voices.caller(pair, plan.subset, plan.site, rng)
            lifted = settings.test_snr_db if plan.subset == "test" else 0.0
            callers[pair] = (individual, _draw_snr(settings, rng) + lifted)
        caller, snr_db = callers[pair]
        call = voices.call(pair, caller, rng)
        spans = taken.setdefault(voices.pairs[pair][0], [])
        onset = _find_room(call.duration, settings, spans, rng)
        if onset is None:
            continue
        spans.append((onset, onset + call.duration))
        snr_db = float(np.clip(snr_db + _CALL_SPREAD_DB * rng.standard_normal(), *_SNR_RANGE_DB))
        _add(wave, noise, call, onset, snr_db, front)
        end = min(onset + call.duration, settings.duration_s)
        events.append(Event(pair, onset, end, call.low, call.high, snr_db, labelled))
    return events


def _draw_snr(settings: DemoSettings, rng: np.random.Generator) -> float:
    return settings.snr_mean_db + settings.snr_std_db * rng.standard_normal()


def _find_room(
    duration: float,
    settings: DemoSettings,
    spans: list[tuple[float, float]],
    rng: np.random.Generator,
) -> float | None:
    """An onset on a whole sample whose span keeps a gap to all `spans`; None when none is found."""
    for _ in range(_TRIES):
        onset = rng.uniform(0.0, max(settings.duration_s - duration, 0.0))
        onset = np.floor(onset * settings.sample_rate) / settings.sample_rate
        if all(onset > end + _GAP_S or onset + duration < start - _GAP_S for start, end in spans):
            return float(onset)
    return None


def _add(
    wave: np.ndarray, noise: np.ndarray, call: Call, onset: float, snr_db: float, front: FrontEnd
) -> None:
    """Add `call` so that its mean power is `snr_db` over the noise of its box."""
    first = int(onset * front.rate / front.hop)
    last = max(first + 1, int((onset + call.duration) * front.rate / front.hop))
    box = noise[min(first, len(noise) - 1) : last, front.bins(call.low, call.high)]
    power = float(box.sum(axis=1).mean()) + 1e-12
    start = round(onset * front.rate)
    part = call.wave[: len(wave) - start]
    wave[start : start + len(part)] += np.float32(np.sqrt(power * 10 ** (snr_db / 10))) * part


def _place_decoys(
    wave: np.ndarray,
    noise: np.ndarray,
    voices: Voices,
    front: FrontEnd,
    settings: DemoSettings,
    rng: np.random.Generator,
) -> None:
    for _ in range(rng.poisson(settings.decoys_per_minute * settings.duration_s / 60)):
        call = voices.decoy(rng)
        if call is not None:
            onset = rng.uniform(0.0, max(settings.duration_s - call.duration, 0.0))
            _add(wave, noise, call, onset, _draw_snr(settings, rng), front)


def _candidates(
    matcher: Matcher,
    events: list[Event],
    pairs: list[tuple[int, int]],
    templates: list[Template],
) -> list[tuple[int, float, float]]:
    """The two strongest wrong matches of each pair (a class's other song type is a true call)."""
    found = []
    for pair, template in enumerate(templates):
        label = pairs[pair][0]
        taken = [(event.onset, event.offset) for event in events if pairs[event.pair][0] == label]
        found += [(pair, onset, score) for onset, score in matcher.best(template, taken, 2)]
    return found
