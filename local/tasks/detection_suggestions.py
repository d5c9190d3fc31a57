"""Settings of detection that the annotation tells: band, cells, windows, events, epochs.

What a version sets is kept and reckoned with: whoever gives a sample rate gets hops for it. The one
number that all else hangs on is the length of a cell, one column of the model's output: about a
third of the 10th percentile of calls and of gaps, so that a short call fills cells of its own and a
short gap leaves one between two calls. `check_cells` holds any configuration against the same.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from local.config import Config, Suggestion
from local.data.annotated import Annotated
from local.scoring.event_rules.labelled_lengths import (
    class_lengths,
    event_lengths,
    said,
    tidy,
    tidy_below,
)
from local.tasks.detection_cells import wanted_cell
from local.tasks.detection_laptop import FINE, NETWORKS, Work, epochs_for, macs_of, windows_for

# A window: cells at least and at most, seconds at most, and how often the longest calls fit.
_WINDOW_CELLS, _LONGEST_WINDOW_S, _CALLS_A_WINDOW = (25, 600), 30.0, 4
# Shares of windows at calls, at spans without, and anywhere; by whether annotation is complete.
_SHARES = {True: (0.6, 0.1, 0.3), False: (0.6, 0.3, 0.1)}
# Rates that sound is resampled to.
_RATES = (1000, 2000, 4000, 8000, 12000, 16000, 24000, 32000, 48000, 64000, 96000, 128000)
_HIGHER_RATES = (192000, 250000, 256000, 384000, 500000)
# Where no box tells the band, rates above this are kept only where all files are of such a rate.
_ULTRASOUND_HZ = 20_000
# Frames a cell at most, whatever the network pools: more are computed for nothing.
_MOST_FRAMES_A_CELL = 16
# Samples of a transform, at most, as the configuration has it.
_LONGEST_TRANSFORM = 2**18
# The longest mask over time hides a tenth of a window; calls must be longer than that by some.
_MASKED_SHARE = 0.15
_DEFAULTS = Config()
_NOTHING = object()


@dataclass
class Proposals:
    """Suggestions that are made one after another; each sees what was set or suggested before.

    given : what the version and its `--set` say, by section and key.
    """

    annotated: Annotated
    given: dict[str, Any]
    made: list[Suggestion] = field(default_factory=list)

    def is_given(self, key: str) -> bool:
        """Whether the version sets a key."""
        return _found(self.given, key) is not _NOTHING

    def value(self, key: str) -> Any:
        """What a key will be: as given, as suggested, or by default."""
        if self.is_given(key):
            return _found(self.given, key)
        made = [one.value for one in self.made if one.key == key]
        return made[-1] if made else _attribute(_DEFAULTS, key)

    def given_number(self, key: str) -> float:
        """What the version sets a key to; 0 where it says nothing."""
        return float(self.value(key) or 0.0) if self.is_given(key) else 0.0

    @property
    def params(self) -> dict[str, Any]:
        """`model.params` as the version sets them; empty where it says nothing."""
        return dict(self.value("model.params")) if self.is_given("model.params") else {}

    def suggested(self, section: str) -> dict[str, Any]:
        """What was suggested in a section, by key."""
        places = [(one.key.rpartition("."), one.value) for one in self.made]
        return {key: value for (within, _, key), value in places if within == section}

    def add(self, key: str, value: Any, reason: str) -> None:
        """Suggest a value unless the version sets one."""
        if not self.is_given(key):
            self.made.append(Suggestion(key, value, reason))


def suggest(annotated: Annotated, given: dict[str, Any]) -> list[Suggestion]:
    """Suggestions for what the version does not set; none where nothing is annotated."""
    if annotated.n_calls == 0:
        return []
    ask = Proposals(annotated, given)
    _band(ask)
    wanted = wanted_cell(annotated)
    step = _network(ask, wanted)
    hop_s = _frames(ask, wanted, step)
    cell = hop_s * step if hop_s is not None and step is not None else wanted
    _windows(ask, cell, hop_s)
    _events(ask, cell)
    _training(ask, cell)
    return ask.made


# ------------------------------------------------------------------------------ band and frames


def _band(ask: Proposals) -> None:
    """Sample rate and the band of the filters."""
    annotated = ask.annotated
    top, bottom = annotated.greatest("highs", 0.95), annotated.least("lows", 0.05)
    lowest, highest = int(annotated.rates.min()), int(annotated.rates.max())
    if top is None:
        # Nobody said where calls lie: all that every file holds, up to what people hear.
        audible = [rate for rate in _RATES if rate <= 48000]
        rate = lowest if lowest > 3 * _ULTRASOUND_HZ else min(lowest, audible[-1])
        why = "no box has frequencies: what every file holds"
    else:
        # A class that calls above what the slowest recorder holds needs the files that hold it.
        unheard = (annotated.greatest("lows", 0.5) or 0.0) >= 0.9 * lowest / 2
        most = highest if unheard else lowest
        needed = max(2.2 * top, 2 * ask.given_number("features.f_max_hz"))
        fit = [rate for rate in (*_RATES, *_HIGHER_RATES) if needed <= rate < most / 1.3]
        rate = fit[0] if fit else most
        why = f"95 % of the boxes end below {said(top, 'Hz')}; files have {_span(lowest, highest)}"
    ask.add("audio.sample_rate", rate, why)
    rate = ask.value("audio.sample_rate")
    if ask.value("features.kind") != "logmel":
        return
    f_max = rate / 2 if top is None else min(rate / 2, 1.1 * top)
    # Boxes from 0 Hz on are drawn over the whole height: that is wind, not the call.
    f_min = 0.75 * bottom if bottom else 50.0 if rate <= 100_000 else 500.0
    f_min = min(f_min, 0.05 * rate) if not bottom else f_min
    f_max = max(f_max, 2 * ask.given_number("features.f_min_hz"))
    f_max = tidy(f_max) if tidy(f_max) <= rate / 2 else rate / 2
    f_min = tidy(min(f_min, 0.5 * f_max))
    boxes = "no box has frequencies" if top is None else "the boxes' edges with a margin"
    if not ask.is_given("features.f_max_hz"):
        ask.add("features.f_max_hz", float(f_max), boxes)
    if not ask.is_given("features.f_min_hz"):
        least = min(f_min, 0.5 * float(ask.value("features.f_max_hz") or rate / 2))
        ask.add("features.f_min_hz", float(least), boxes)
    if float(ask.value("features.f_min_hz")) >= 10_000:
        ask.add("features.mel_scale", "linear", "above 10 kHz bands are best of one width")


def _network(ask: Proposals, wanted: float) -> int | None:
    """The network and its pooling over time; frames a cell, None where it cannot be told."""
    name, kind = ask.value("model.name"), ask.value("features.kind")
    if name != "crnn" or kind != "logmel":
        return _step_of(ask)
    network = next(one for one in NETWORKS if wanted >= one.from_cell_s)
    if ask.is_given("features.hop_length"):
        hop_s = float(ask.value("features.hop_length")) / float(ask.value("audio.sample_rate"))
        fit = [one for one in NETWORKS if hop_s * one.step <= 1.2 * wanted]
        network = fit[0] if fit else FINE
    shaping = ("channels", "pool", "depth", "stem")
    given = [key for key in shaping if ask.is_given(f"model.params.{key}")]
    if not given:
        why = f"cells of {said(wanted, 's')} are wanted: {network.step} frames each"
        n_mels = int(ask.value("features.n_mels"))
        ask.add("model.name", "crnn", "a network that trains on two cores")
        for key, value in network.params(n_mels).items():
            ask.add(f"model.params.{key}", value, why)
        if ask.params:
            # What the version sets of it, such as its GRU, has to fit: building it tells.
            return _step_of(ask)
        return network.step
    return _step_of(ask)


def _step_of(ask: Proposals) -> int | None:
    """Frames a cell of the network that the version names, which is built for it."""
    from local.models import create_model, without_pretrained

    params = without_pretrained({**ask.suggested("model.params"), **ask.params})
    n_bands = int(ask.value("features.n_mels"))
    return int(create_model(ask.value("model.name"), params, 2, n_bands).step)


def _frames(ask: Proposals, wanted: float, step: int | None) -> float | None:
    """Hop, transform and its window; seconds a frame."""
    rate = int(ask.value("audio.sample_rate"))
    if ask.value("features.kind") != "logmel":
        return 1 / rate if ask.value("features.kind") == "wave" else None
    if step is not None:
        hop = max(1, round(wanted / min(step, _MOST_FRAMES_A_CELL) * rate))
        # A whole number of samples, in tens where that changes little.
        hop = round(hop, -1) if hop >= 100 else hop
        why = f"{step} frames a cell, cells of {said(hop * step / rate, 's')}"
        ask.add("features.hop_length", hop, why)
    hop = int(ask.value("features.hop_length"))
    n_mels = int(ask.value("features.n_mels"))
    length = int(ask.given_number("features.win_length"))
    length = length or _window_of_frames(ask, hop, rate, step or 1)
    n_fft = _transform(ask, length, rate, n_mels)
    why = f"holds {length} samples, fine enough for {n_mels} bands from the lowest on"
    ask.add("features.n_fft", n_fft, why)
    if not ask.is_given("features.n_fft") and length < n_fft:
        why = f"{said(length / rate, 's')}, frames of {said(hop / rate, 's')}: to tell gaps"
        ask.add("features.win_length", length, why)
    return hop / rate


def _window_of_frames(ask: Proposals, hop: int, rate: int, step: int) -> int:
    """Samples that a frame is made of: some four hops, half of which weigh.

    No more than is usual for what is heard (43 ms, fewer at rates above that); for low calls some
    periods, within three cells.
    """
    usual = 0.043 * min(rate, 32000)
    lowest = ask.annotated.least("lows", 0.05)
    periods = 4 * rate / lowest if lowest else 0.0
    return max(32, hop, int(max(min(4 * hop, usual), min(periods, 3 * hop * step))))


def _transform(ask: Proposals, length: int, rate: int, n_mels: int) -> int:
    """The least power of two that holds a window and leaves no filter empty, of those allowed."""
    from local.config import FeatureConfig
    from local.features.mel import mel_filters

    n_fft = min(_LONGEST_TRANSFORM, 2 ** max(5, math.ceil(math.log2(length))))
    keys = {key: ask.value(f"features.{key}") for key in ("f_min_hz", "f_max_hz", "mel_scale")}
    while n_fft < 2**14:
        features = FeatureConfig(n_fft=n_fft, n_mels=n_mels, **keys)
        if mel_filters(features, rate).max(axis=1).min() > 0:
            break
        n_fft *= 2
    return n_fft


# ------------------------------------------------------------------- windows, events, training


def _windows(ask: Proposals, cell: float, hop_s: float | None) -> None:
    """Windows of training and inference."""
    annotated = ask.annotated
    call = annotated.greatest("durations", 0.9) or 1.0
    least, most = (n * cell for n in _WINDOW_CELLS)
    length = min(max(_CALLS_A_WINDOW * call, least), most, _LONGEST_WINDOW_S)
    length = tidy(min(length, max(float(annotated.lengths.max()), least)))
    why = (
        f"{_CALLS_A_WINDOW} calls of {said(call, 's')} (90 % of the longest class are shorter), "
        f"{_WINDOW_CELLS[0]} to {_WINDOW_CELLS[1]} cells"
    )
    if ask.value("window.short") == "refuse" and length > annotated.shortest:
        length = tidy_below(annotated.shortest)
        why = (
            f"the shortest recording lasts {annotated.shortest:.3f} s and window.short is refuse; "
            "with repeat or silence it would be padded"
        )
    ask.add("window.length_s", length, why)
    length = float(ask.value("window.length_s"))
    if not ask.value("window.whole"):
        _inference_windows(ask, length, hop_s)
    ask.add("inference.stitch", "mean", "edges of events: the maximum would widen them")
    complete = ask.value("data.annotation") == "complete"
    why = "what has no box is absent anywhere" if complete else "only boxes say anything"
    for kind, share in zip(("positive", "negative", "random"), _SHARES[complete], strict=True):
        ask.add(f"window.p_{kind}", share, f"annotation is {ask.value('data.annotation')}: {why}")
    if (annotated.least("durations", 0.1) or 0.0) < _MASKED_SHARE * length:
        ask.add("augment.time_masks", 0, "a mask over time would hide whole calls")
    else:
        ask.add("augment.time_masks", 2, "calls are longer than what a mask hides")


def _inference_windows(ask: Proposals, length: float, hop_s: float | None) -> None:
    """Windows of inference and their overlap, which must be less than any window."""
    frames = {key: ask.value(f"inference.{key}_frames") for key in ("window", "overlap")}
    if frames["window"] is not None or (frames["overlap"] is not None and hop_s is None):
        return
    overlap = ask.given_number("inference.overlap_s") or (frames["overlap"] or 0) * (hop_s or 0.0)
    why = "twice the training window: fewer edges"
    if overlap > length:
        why = "twice the overlap that is set"
    ask.add("inference.window_s", 2 * max(length, overlap), why)
    if frames["overlap"] is None:
        # Test-time augmentation looks through windows of other lengths with the same overlap.
        windows = [ask.value("inference.window_s") or length, *ask.value("inference.tta.lengths_s")]
        window = min(map(float, windows))
        ask.add("inference.overlap_s", window / 2, "every cell is seen twice")


def _events(ask: Proposals, cell: float) -> None:
    """Lengths of events: what is tried where a rule is fitted, and what holds where none is."""
    annotated = ask.annotated
    durations, gaps = event_lengths(annotated)
    call, gap = annotated.least("durations", 0.05) or 0.0, annotated.least("gaps", 0.1)
    between = f"gaps {said(gap, 's')}" if gap is not None else "there are no gaps"
    why = f"the shortest 5 % of calls last {said(call, 's')}, {between}"
    if ask.value("data.annotation") == "complete":
        if ask.value("inference.keep_frames"):
            ask.add("events.tune", True, "annotation is complete, so a rule can be fitted")
        ask.add("events.durations_s", list(durations), why)
        ask.add("events.gaps_s", list(gaps), why)
        ask.add("events.collar_s", tidy(min(0.2, max(call / 2, cell))), "half of a short call")
        ask.add("events.segment_s", tidy(min(1.0, max(call, cell))), "a short call")
    of_classes = class_lengths(annotated)
    for place, key in enumerate(("min_duration_s", "max_gap_s")):
        by_class = {label: lengths[place] for label, lengths in of_classes.items()}
        ask.add(f"relabel.{key}", by_class, "by the calls and gaps of each class")


def _training(ask: Proposals, cell: float) -> None:
    """Windows a batch, epochs, windows an epoch: what two cores do in minutes."""
    length = float(ask.value("window.length_s"))
    cells = length / cell
    ask.add("train.batch_size", 16 if cells <= 300 else 8, f"windows of {cells:.0f} cells")
    batch = int(ask.value("train.batch_size"))
    params = {**ask.suggested("model.params"), **ask.params}
    if "model.params.pool" not in {one.key for one in ask.made}:
        # A network of the version's own: nobody knows how long it takes.
        return
    step = math.prod(frames for _, frames in params["pool"])
    work = Work(
        macs=macs_of(params, int(ask.value("features.n_mels"))) * cells * step,
        batch=batch,
        n_folds=int(ask.value("split.n_folds")),
        n_calls=ask.annotated.n_calls,
        n_places=ask.annotated.total_s / length,
    )
    given = _windows_an_epoch(ask, work)
    if ask.is_given("train.n_epochs"):
        n_epochs = int(ask.value("train.n_epochs"))
    else:
        n_epochs = epochs_for(work, given)
    n_windows = windows_for(work, n_epochs) if given is None else given
    minutes = tidy(work.minutes(n_epochs, n_windows))
    epochs = "1 epoch" if n_epochs == 1 else f"{n_epochs} epochs"
    why = (
        f"{epochs} of {n_windows:.0f} windows: about {minutes:g} minutes on two cores for "
        f"{work.n_folds} folds"
    )
    ask.add("train.n_epochs", n_epochs, why)
    ask.add("train.windows_per_epoch", n_windows, why)


def _windows_an_epoch(ask: Proposals, work: Work) -> float | None:
    """Windows an epoch that the version sets; None where it leaves that to be suggested."""
    if not ask.is_given("train.windows_per_epoch"):
        return None
    # Where it sets null, there is one for each row of the fold's training recordings.
    n_rows = (ask.annotated.n_calls + ask.annotated.n_rejected) * (1 - 1 / work.n_folds)
    return float(ask.value("train.windows_per_epoch") or max(work.batch, n_rows))


# --------------------------------------------------------------------------------------- words


def _span(low: float, high: float) -> str:
    return f"{low:.0f} Hz" if low == high else f"{low:.0f} to {high:.0f} Hz"


def _found(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return _NOTHING
        values = values[part]
    return values


def _attribute(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part)
    return value
