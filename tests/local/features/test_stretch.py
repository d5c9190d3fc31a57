"""Stretched sound: as long as asked, at the same pitch, its labels where its energy is."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from local.config import Config
from local.data.tables import Tables
from local.features.front_ends.front_end_registry import front_end_of
from local.features.front_ends.logmel_torch import LogMel
from local.features.mel import mel_edges
from local.features.npz import read_header, stretched_folder
from local.features.time_stretch import stretch, stretch_stream
from local.inference.score_recordings import score_recordings
from local.io.errors import CanopyError
from local.labels.grid import grid_of, overlap
from local.models import SedModel, SedOutput
from local.training.epoch_plan import make_training_set, plan_epoch
from local.training.examples import WindowDataset
from local.training.window_reading import Variations, vary_epoch

RATE = 8000
STEP = 4
FACTORS = (0.8, 0.9, 1.1, 1.25)
# Two calls an octave apart; the classes are the bands they are in.
CALLS = {"low": (1000.0, [(1.0, 1.4), (8.2, 8.6)]), "high": (2500.0, [(4.5, 5.2)])}
SECONDS = 10.0


def make_config(**sections):
    return Config.model_validate(
        {
            "audio": {"sample_rate": RATE},
            "features": {
                "n_fft": 256,
                "hop_length": 80,
                "n_mels": 32,
                "dtype": "float32",
                "stretches": list(FACTORS),
                **sections.pop("features", {}),
            },
            "window": {"length_s": 2.0, **sections.pop("window", {})},
            **sections,
        }
    )


def tones(seed=0):
    rng = np.random.default_rng(seed)
    wave = rng.normal(0, 1e-3, int(SECONDS * RATE))
    time = np.arange(len(wave)) / RATE
    for hertz, spans in CALLS.values():
        for onset, offset in spans:
            inside = (time >= onset) & (time < offset)
            wave[inside] += 0.3 * np.sin(2 * np.pi * hertz * time[inside])
    return wave.astype(np.float32)


def pool_of(dump):
    rows = [
        ("r0", label, onset, offset, 1, "tp")
        for label, (_, spans) in CALLS.items()
        for onset, offset in spans
    ]
    columns = ["recording_id", "label", "onset", "offset", "polarity", "source"]
    events = pd.DataFrame(rows, columns=columns).assign(weight=1.0)
    tables = Tables(pd.DataFrame(), events, pd.DataFrame({"label": list(CALLS)}))
    return make_training_set(tables, events, ["r0"], dump)


def band_of(hertz, config):
    """Three bands about a frequency."""
    band = int(np.abs(mel_edges(config.features, RATE)[1:-1] - hertz).argmin())
    return slice(band - 1, band + 2)


def loud_cells(x, config):
    """(2, n) bool: cells in whose band of either class a tone is, from the features alone."""
    power = np.exp(np.asarray(x, dtype=np.float64)[0])
    found = []
    for hertz, _ in CALLS.values():
        tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)
        alone = LogMel(config.features, RATE)(torch.from_numpy(tone))[:, 50].double().exp().numpy()
        row = power[band_of(hertz, config)].sum(axis=0)
        cells = row[: len(row) // STEP * STEP].reshape(-1, STEP).mean(axis=1)
        found.append(cells > 0.15 * alone[band_of(hertz, config)].sum())
    return np.stack(found)


# ---------------------------------------------------------------------------------- the waveform


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 1.7])
def test_length_pitch_and_level(factor):
    wave = torch.from_numpy(tones())
    out = stretch(wave, factor, 256)
    assert out.shape == (round(len(wave) * factor),)
    for hertz, spans in CALLS.values():
        for onset, offset in spans:
            middle = (onset + offset) / 2 * factor
            piece = out[int((middle - 0.05) * RATE) : int((middle + 0.05) * RATE)].numpy()
            spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece))))
            assert spectrum.argmax() * RATE / len(piece) == pytest.approx(hertz, abs=12)
            # The vocoder takes a few decibels from a call that starts out of noise.
            assert 0.18 < np.sqrt(2 * np.mean(piece**2)) < 0.33


def test_a_factor_of_one_is_the_sound_itself():
    wave = torch.randn(999)
    assert stretch(wave, 1.0, 256) is wave


@pytest.mark.parametrize("n", [1, 50, 300])
def test_very_short_sounds(n):
    for factor in FACTORS:
        out = stretch(torch.randn(n), factor, 256)
        assert out.shape == (round(n * factor),)
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("factor", FACTORS)
def test_pieces_join_without_drift(factor, monkeypatch):
    monkeypatch.setattr("local.features.time_stretch._PIECE_SAMPLES", 9_001)
    wave = tones()
    whole = stretch(torch.from_numpy(wave), factor, 256).numpy()
    joined = np.concatenate(list(stretch_stream(np.array_split(wave, 23), factor, 256)))
    assert len(joined) == len(whole) == round(len(wave) * factor)

    def level(x):
        return np.sqrt(np.convolve(x**2, np.ones(400) / 400, mode="same"))

    # Calls are where they were; for the moment of a seam one may cancel in part.
    apart = (level(joined) > 0.05) != (level(whole) > 0.05)
    assert apart.mean() < 0.01
    assert np.abs(level(joined) - level(whole)).mean() < 0.012


# ------------------------------------------------------------------------------------- the dumps


def test_the_plain_dump_has_its_name_whatever_lies_beside_it(tmp_path):
    plain = front_end_of(Config()).id
    assert plain == front_end_of(make_default(stretches=[0.9, 1.1])).id
    assert plain != front_end_of(make_default(keep_wave=True)).id
    assert stretched_folder(tmp_path / "abc", 0.9) == tmp_path / "abc_x0.9"
    assert stretched_folder(tmp_path / "abc", 1.0) == tmp_path / "abc"


def make_default(**features):
    return Config.model_validate({"features": features})


def test_stretched_dumps_tell_their_own_time(sound_dump):
    """Durations and lengths are the file's, not those of a fixed recording."""
    config = make_config()
    dump = sound_dump({"r0": tones()}, config)
    for factor in FACTORS:
        stretched = dump.at(factor)
        info = read_header(stretched.folder / "r0.npz")
        assert info.duration == pytest.approx(SECONDS * factor)
        assert info.n_frames == stretched.n_frames("r0") == 1 + round(SECONDS * factor * RATE) // 80
    assert dump.at(1.0) is dump


def test_a_missing_dump_and_one_that_lacks_a_recording_are_told(sound_dump):
    config = make_config(features={"stretches": [0.9]})
    dump = sound_dump({"r0": tones()}, config)
    with pytest.raises(CanopyError, match=r"stretched by 1\.1; run stage 0"):
        dump.at(1.1)
    manifest = stretched_folder(dump.folder, 0.9) / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",ok,", ",invalid,"))
    with pytest.raises(CanopyError, match="lacks recording r0"):
        dump.at(0.9)


# ------------------------------------------------------------------------- labels in what is read


def check_alignment(dump, dump_factor, factor, start):
    config = dump.config
    vary = Variations.none(1)
    vary.dump_factor[:], vary.factor[:] = dump_factor, factor
    window = 200
    data = WindowDataset(pool_of(dump), dump, np.array([[0, start]]), window, STEP, 2, vary)
    item = data[0]
    assert item["x"].shape == (1, 32, window)
    heard = loud_cells(item["x"], config)
    # Where more than a sliver of a cell is filled, or known to be: the share is the mask.
    labelled = (item["frame_target"] * item["frame_mask"]).numpy() > 0.5
    for label in range(2):
        edges = [
            np.flatnonzero(np.diff(np.pad(rows[label].astype(int), 1)))
            for rows in (heard, labelled)
        ]
        assert len(edges[0]) == len(edges[1])
        assert (np.abs(edges[0] - edges[1]) <= 1).all(), (edges, dump_factor, factor, start)
    return labelled.sum()


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.8, 0.9, 0.95, 1.0, 1.1, 1.25])
@pytest.mark.parametrize("dump_factor", [1.0, 0.8, 1.25])
def test_the_frame_that_sounds_is_the_frame_labelled(sound_dump, dump_factor, factor):
    """Read from a stretched dump, stretched on the fly, or both.

    Pins defect 19 of earlier systems: labels of stretched sound kept unstretched times.
    """
    dump = sound_dump({"r0": tones()}, make_config(augment={"stretch": [0.8, 1.25]}))
    total = dump_factor * factor
    labelled = 0
    for _, spans in CALLS.values():
        for onset, _ in spans:
            start = max(0, round((onset - 0.4) * dump_factor / 0.01))
            room = dump.at(dump_factor).n_frames("r0") - int(np.ceil(200 / factor))
            labelled += check_alignment(dump, dump_factor, factor, min(start, room))
    # Every call whole, in cells of 40 ms of the time that the network sees.
    whole = sum(offset - onset for _, spans in CALLS.values() for onset, offset in spans)
    assert labelled == pytest.approx(whole * total / 0.04, rel=0.15)


def test_visibility_is_judged_in_the_time_that_is_seen():
    """The same event shows more seconds of itself when it is played slower; the rule is one."""
    config = make_config(window={"min_visible_s": 0.5, "min_visible_share": 1.0})
    grid = grid_of(200, front_end_of(config).hop_s, -0.5, 100, STEP, stretch=2.0)
    assert grid.start_s == pytest.approx(2 * (100 - 0.5) * 0.01)
    assert grid.end_s - grid.start_s == pytest.approx(2.0)


def test_a_millisecond_of_overlap_labels_neither_window_nor_frame(sound_dump):
    """In stretched time as in plain.

    Pins defect 17 of earlier systems: a millisecond made a window positive, not its frames.
    """
    dump = sound_dump({"r0": tones()}, make_config())
    for factor in (1.0, 0.8, 1.25):
        vary = Variations.none(1)
        vary.factor[:] = factor
        # The window ends a millisecond into the call of `low` at 8.2 s.
        end = round((8.201 / 0.01) + 0.5)
        start = end - round(200 / factor)
        item = WindowDataset(pool_of(dump), dump, np.array([[0, start]]), 200, STEP, 2, vary)[0]
        assert item["clip_target"][0] == 0
        assert item["clip_mask"][0] == 0
        assert (item["frame_target"][0] * item["frame_mask"][0]).sum() == 0


# --------------------------------------------------------------------------------------- drawing


def test_windows_drawn_in_stretched_time_show_their_event(sound_dump):
    config = make_config(
        window={"p_negative": 0, "p_random": 0, "p_stretched": 0.7, "min_visible_s": 0.3},
        augment={"stretch": [0.8, 1.25]},
    )
    dump = sound_dump({"r0": tones()}, config)
    training_set = pool_of(dump)
    vary = vary_epoch(training_set, config, 200, 300, np.random.default_rng(0))
    assert 0.6 < (vary.dump_factor != 1).mean() < 0.8
    assert set(vary.dump_factor) == {1.0, *FACTORS}
    assert vary.factor.min() >= 0.8
    assert vary.factor.max() <= 1.25
    args = training_set, config, 200, 300, np.random.default_rng(1), vary.dump_factor, vary.factor
    plan = plan_epoch(*args)
    data = WindowDataset(training_set, dump, plan, 200, STEP, 2, vary)
    shown = []
    for i in range(300):
        assert data[i]["clip_target"].sum() >= 1
        start = plan[i, 1] + 200 / vary.factor[i]
        assert start <= dump.at(vary.dump_factor[i]).n_frames("r0") + 1
        total = vary.dump_factor[i] * vary.factor[i]
        begin = (plan[i, 1] - 0.5) * 0.01 * vary.factor[i]
        spans = np.array([span for _, spans in CALLS.values() for span in spans]) * total
        seen = overlap(spans[:, 0], spans[:, 1], begin, begin + 2.0)
        shown.append(seen.max())
    assert min(shown) >= 0.3 * 0.5 * 0.8 - 1e-9
    assert max(shown) > 0.7


def test_nothing_is_drawn_that_is_not_asked_for(sound_dump):
    config = make_config()
    dump = sound_dump({"r0": tones()}, config)
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    vary = vary_epoch(pool_of(dump), config, 200, 50, rng)
    assert rng.bit_generator.state == before
    assert (vary.dump_factor == 1).all()
    assert (vary.factor == 1).all()
    assert not vary.wave.any()


# ------------------------------------------------------------------------------------- inference


class Tones(SedModel):
    """Scores a cell by the level in the band of either class."""

    step = STEP

    def __init__(self, config) -> None:
        super().__init__()
        self.bands = [band_of(hertz, config).start + 1 for hertz, _ in CALLS.values()]
        self.lengths: list[int] = []

    def forward(self, x):
        self.lengths.append(x.shape[-1])
        n = x.shape[-1] // STEP
        cells = x[:, 0, self.bands, : n * STEP].exp().unflatten(-1, (n, STEP)).mean(-1)
        logit = 2 * (cells + 1e-12).log() + 18
        return SedOutput(logit, logit.amax(-1), None, logit.mean(-1))


@pytest.mark.parametrize("stretches", [[0.8], [1.25], [0.9, 1.1]])
@pytest.mark.parametrize("speeds", [[1.0], [1.1]])
def test_stretched_views_come_back_to_plain_time(sound_dump, stretches, speeds):
    config = make_config(inference={"tta": {"stretches": stretches, "speeds": speeds}})
    dump = sound_dump({"r0": tones()}, config)
    model = Tones(config).eval()
    scores = score_recordings(model, dump, ["r0"], list(CALLS), "cpu")
    grid = scores.grid(0)
    assert grid.n == round(dump.n_frames("r0") / STEP)
    prob = expit(scores.frames[0])
    for label, (_, spans) in enumerate(CALLS.values()):
        above = prob[label] > 0.5 * prob[label].max()
        edges = np.flatnonzero(np.diff(np.pad(above.astype(int), 1)))
        expected = [(t - grid.start_s) / grid.hop_s for span in spans for t in span]
        assert len(edges) == len(expected)
        assert np.abs(edges - expected).max() <= 2
        middles = (edges - expected).reshape(-1, 2).mean(axis=1)
        assert np.abs(middles).max() <= 0.75


def test_the_plain_view_is_always_among_them(sound_dump):
    """With views that all say less than the plain one, the mean says so."""
    config = make_config(inference={"tta": {"stretches": [0.9, 1.1]}})
    dump = sound_dump({"r0": tones()}, config)
    alone = sound_dump({"r0": tones()}, make_config())
    model = Tones(config).eval()
    both = score_recordings(model, dump, ["r0"], list(CALLS), "cpu")
    plain = score_recordings(model, alone, ["r0"], list(CALLS), "cpu")
    assert not np.allclose(both.frames[0], plain.frames[0], atol=1e-3)
    assert both.frames[0].shape == plain.frames[0].shape
    np.testing.assert_allclose(expit(both.window).mean(), expit(plain.window).mean(), atol=0.3)
