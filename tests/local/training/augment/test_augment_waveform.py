"""Waveforms that are augmented change what the network sees, and only then."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import default_collate

from local.config import Config
from local.data.tables import Tables
from local.features.front_ends.logmel_torch import LogMel
from local.features.npz import FeatureReader
from local.io.errors import CanopyError
from local.training.augment.batch import Batch
from local.training.augment.chain import augment
from local.training.augment.input_kind import InputKind
from local.training.augment.waveform import add_wave, noise_wave, pitch_shift
from local.training.epoch_plan import make_training_set, plan_epoch
from local.training.examples import WindowDataset
from local.training.window_reading import Variations, vary_epoch

RATE = 8000
LABELS = ["a", "b"]


def make_config(**sections):
    features = {"n_fft": 256, "hop_length": 80, "n_mels": 24, "dtype": "float16"}
    return Config.model_validate(
        {
            "audio": {"sample_rate": RATE},
            "features": {**features, "keep_wave": True, **sections.pop("features", {})},
            "window": {"length_s": 1.0, "min_visible_s": 0.2, **sections.pop("window", {})},
            **sections,
        }
    )


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def sounds(seconds=(4.0, 3.0)):
    g = np.random.default_rng(0)
    return {f"r{i}": 0.05 * g.standard_normal(int(s * RATE)) for i, s in enumerate(seconds)}


def tables_and_events():
    rows = [("r0", "a", 1.0, 1.5, 1, "tp"), ("r1", "b", 0.5, 2.0, -1, "fp")]
    columns = ["recording_id", "label", "onset", "offset", "polarity", "source"]
    events = pd.DataFrame(rows, columns=columns).assign(weight=1.0)
    return Tables(pd.DataFrame(), events, pd.DataFrame({"label": LABELS})), events


def pool_of(dump):
    return make_training_set(*tables_and_events(), ["r0", "r1"], dump)


def read(dump, plan, vary, window=100, step=4, training_set=None):
    """A batch as training collates it."""
    training_set = training_set or pool_of(dump)
    data = WindowDataset(training_set, dump, np.asarray(plan), window, step, 2, vary)
    return Batch(**default_collate([data[i] for i in range(len(data))]))


# A pitch shift of nothing: the waveform goes all the way and comes back as it was.
STILL = {"wave_p": 1.0, "wave_pitch": [0.0, 0.0]}


# -------------------------------------------------------------------------- from dump to network


@pytest.mark.parametrize("stretch", [None, [0.8, 1.25]])
@pytest.mark.parametrize("short", ["repeat", "silence"])
def test_a_waveform_that_is_not_changed_gives_the_dump(sound_dump, short, stretch):
    """Windows at both ends, in the middle, and beyond the end of a short recording.

    Of what is read, also when stretched.
    """
    config = make_config(window={"short": short}, augment={**STILL, "stretch": stretch})
    dump = sound_dump(sounds((4.0, 0.6)), config)
    plan = [[0, 0], [0, 7], [0, 150], [0, dump.n_frames("r0") - 100], [1, 0], [0, 3]]
    vary = Variations.none(len(plan))
    vary.wave[:5] = True
    if stretch is not None:
        vary.factor[:] = [0.8, 1.25, 0.93, 1.25, 1.1, 0.8]
    batch = read(dump, plan, vary)
    dumped = batch.x.clone()
    blank = replace(batch, x=torch.where(batch.waved.view(-1, 1, 1, 1), 99.0, batch.x))
    out = augment(blank, config.augment, rng(), InputKind.of(config))
    # Half precision has 11 bits; sixteen-bit samples are what the sound file itself holds.
    torch.testing.assert_close(out.x, dumped, atol=0.012, rtol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"wave_p": 1.0, "wave_pitch": [2.0, 5.0]},
        {"wave_p": 1.0, "noise_p": 1.0, "noise_snr_db": [0.0, 5.0]},
        {"wave_p": 1.0, "background_p": 1.0, "background_snr_db": [0.0, 5.0]},
    ],
)
def test_augmented_waveforms_change_what_the_network_sees(sound_dump, change):
    """What is asked for takes place, in every window that is chosen, every time anew.

    Pins defect 2 of earlier systems: augmentation was configured and never ran.
    """
    config = make_config(augment=change)
    dump = sound_dump(sounds(), config)
    training_set = pool_of(dump)
    vary = vary_epoch(training_set, config, 100, 6, np.random.default_rng(0))
    assert vary.wave.all()
    plan = plan_epoch(training_set, config, 100, 6, np.random.default_rng(1))
    batch = read(dump, plan, vary)
    outs = [augment(batch, config.augment, rng(s), InputKind.of(config)).x for s in (0, 0, 1)]
    assert ((outs[0] - batch.x).abs() > 0.1).flatten(1).float().mean(dim=1).min() > 0.2
    assert torch.equal(outs[0], outs[1])
    if "background_p" not in change:
        assert not torch.equal(outs[0], outs[2])


def test_nothing_is_frozen_into_the_dump(sound_dump):
    """An epoch of augmentation leaves every file and every later crop as they were.

    Pins defect 3 of earlier systems: augmented sound was written into the cache.
    """
    config = make_config(augment={"wave_p": 1.0, "wave_pitch": [-3, 3], "noise_p": 1.0})
    dump = sound_dump(sounds(), config)
    before = {path.name: path.read_bytes() for path in dump.folder.iterdir()}
    vary = Variations.none(2)
    vary.wave[:] = True
    first = read(dump, [[0, 0], [1, 50]], vary)
    kept = {name: getattr(first, name).clone() for name in ("x", "wave", "frame_mask")}
    augment(first, config.augment, rng(), InputKind.of(config))
    assert all(torch.equal(getattr(first, name), value) for name, value in kept.items())
    again = read(dump, [[0, 0], [1, 50]], vary)
    assert torch.equal(again.x, first.x)
    assert torch.equal(again.wave, first.wave)
    assert {path.name: path.read_bytes() for path in dump.folder.iterdir()} == before


def test_only_the_rows_that_were_chosen_are_read_and_changed(sound_dump):
    config = make_config(augment={"wave_p": 0.5, "wave_pitch": [3, 3]})
    dump = sound_dump(sounds(), config)
    vary = Variations.none(4)
    vary.wave[[1, 3]] = True
    batch = read(dump, [[0, 0], [0, 100], [1, 50], [1, 9]], vary)
    assert batch.waved.tolist() == [False, True, False, True]
    assert (batch.wave[0] == 0).all()
    out = augment(batch, config.augment, rng(), InputKind.of(config)).x
    assert torch.equal(out[[0, 2]], batch.x[[0, 2]])
    assert not torch.equal(out[[1, 3]], batch.x[[1, 3]])


def test_a_dump_without_waveforms_says_so(sound_dump):
    dump = sound_dump(sounds(), make_config(features={"keep_wave": False}))
    with pytest.raises(CanopyError, match=r"r0\.npz: no waveform lies beside its features"):
        dump.wave_behind("r0", 0, 5)


def test_the_waveform_in_the_file_is_the_sound(sound_dump):
    waves = sounds()
    dump = sound_dump(waves, make_config())
    reader, path = FeatureReader(), dump.folder / "r0.npz"
    assert reader.n_samples(path) == len(waves["r0"])
    stored = reader.read_wave(path, 100, 900) / 32768
    np.testing.assert_allclose(stored, waves["r0"][100:900], atol=1 / 32768)
    with pytest.raises(CanopyError, match="samples 0 to 99999999 were asked for"):
        reader.read_wave(path, 0, 99999999)
    with np.load(path, allow_pickle=False) as archive:
        assert archive["wave"].dtype == np.int16
        assert {"feats", "wave"} <= set(archive.files)


# --------------------------------------------------------------------------------- what is done


@pytest.mark.parametrize("semitones", [-5.0, -0.5, 1.0, 7.0])
def test_a_pitch_shift_moves_a_tone_and_keeps_its_time(semitones):
    time = np.arange(2 * RATE) / RATE
    wave = np.where((time > 0.8) & (time < 1.2), np.sin(2 * np.pi * 900 * time), 0)
    out = pitch_shift(torch.from_numpy(wave).float(), semitones, 256).numpy()
    assert out.shape == wave.shape
    piece = out[int(0.85 * RATE) : int(1.15 * RATE)]
    spectrum = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 16))
    found = spectrum.argmax() * RATE / (1 << 16)
    assert 12 * math.log2(found / 900) == pytest.approx(semitones, abs=0.08)
    sounding = np.flatnonzero(np.abs(out) > 0.2)[[0, -1]] / RATE
    np.testing.assert_allclose(sounding, [0.8, 1.2], atol=0.02)


@pytest.mark.parametrize("snr_db", [-5.0, 10.0])
def test_sounds_are_added_at_the_ratio_asked_for(snr_db):
    wave, other = torch.randn((3, 4000), generator=rng()), torch.randn((3, 4000), generator=rng(1))
    out = add_wave(wave, 7 * other, torch.tensor([snr_db, math.inf, snr_db]))
    assert torch.equal(out[1], wave[1])
    for i in (0, 2):
        added = out[i] - wave[i]
        found = 10 * torch.log10(wave[i].square().sum() / added.square().sum())
        assert float(found) == pytest.approx(snr_db, abs=1e-3)
        assert torch.nn.functional.cosine_similarity(added, other[i], dim=0) > 0.999


def test_silence_stays_finite():
    wave = torch.zeros(2, 400)
    wave[0] = torch.randn(400)
    out = add_wave(wave, wave.flip(0), torch.zeros(2))
    assert torch.equal(out, wave)


def test_pink_noise_falls_by_three_decibels_an_octave():
    wave = torch.zeros(2, 1 << 17)
    noise = noise_wave(wave, torch.tensor([False, True]), rng())
    power = torch.fft.rfft(noise.double()).abs().square()
    octaves = [slice(1 << k, 2 << k) for k in range(8, 15)]
    level = torch.stack([10 * torch.log10(power[:, o].mean(dim=1)) for o in octaves])
    slopes = level.diff(dim=0).mean(dim=0)
    assert float(slopes[0]) == pytest.approx(0, abs=0.15)
    assert float(slopes[1]) == pytest.approx(-3.01, abs=0.15)


def test_features_of_an_excerpt_are_those_of_the_whole():
    config = make_config().features
    front_end = LogMel(config, RATE)
    wave = torch.randn(2, 5000, generator=rng())
    whole = front_end(wave)
    first, n = 10, 30
    excerpt = wave[:, first * 80 - 128 : (first + n - 1) * 80 + 128]
    torch.testing.assert_close(front_end.frames(excerpt), whole[..., first : first + n])


# ---------------------------------------------------------------------------- models of waveforms


def wave_batch(config, dump, n=8):
    training_set = pool_of(dump)
    window = RATE
    vary = vary_epoch(training_set, config, window, n, np.random.default_rng(3))
    plan = plan_epoch(training_set, config, window, n, np.random.default_rng(4))
    return read(dump, plan, vary, window, 80)


@pytest.mark.parametrize(
    "change",
    [
        {"wave_p": 1.0, "wave_pitch": [2.0, 5.0]},
        {"noise_p": 1.0, "noise_snr_db": [0, 0]},
        {"background_p": 1.0, "background_from": "random"},
        {"shift_s": 0.5},
    ],
)
def test_waveform_models_are_augmented_alike(sound_dump, change):
    config = make_config(features={"kind": "wave", "keep_wave": False}, augment=change)
    dump = sound_dump(sounds(), config)
    batch = wave_batch(config, dump)
    out = augment(batch, config.augment, rng(), InputKind.of(config)).x
    assert out.shape == (8, RATE)
    assert torch.isfinite(out).all()
    assert (out != batch.x).any(dim=1).float().mean() >= 0.75
    if "noise_p" in change:
        ratio = batch.x.square().sum(dim=1) / (out - batch.x).square().sum(dim=1)
        torch.testing.assert_close(ratio, torch.ones(8), atol=1e-2, rtol=0)


# ------------------------------------------------------------------------------------ backgrounds


def labelled(dump, config, plan, background, snr_db):
    vary = Variations.none(len(plan))
    vary.background[:] = background
    vary.background_snr_db[:] = snr_db
    return read(dump, plan, vary)


@pytest.mark.parametrize(("faint", "kept"), [(None, False), (15.0, False), (10.0, True)])
def test_labels_over_a_background(sound_dump, faint, kept):
    """Presence stays; absence stays where the background lacks it too, or is faint enough."""
    config = make_config(augment={"background_p": 1.0, "background_faint_db": faint})
    dump = sound_dump(sounds(), config)
    # r0 from 0.7 s: a is present. r1 from 0.6 s: b is known absent all through.
    plain = read(dump, [[0, 70], [1, 60]], Variations.none(2))
    assert plain.clip_target.tolist() == [[1, 0], [0, 0]]
    assert plain.clip_mask.tolist() == [[1, 0], [0, 1]]
    # Over the end of r0, of which nothing is known.
    over = labelled(dump, config, [[0, 70], [1, 60]], [[0, 250], [0, 250]], 12.0)
    assert torch.equal(over.clip_target, plain.clip_target)
    assert over.clip_mask.tolist() == [[1, 0], [0, float(kept)]]
    assert torch.equal(over.frame_mask[0], plain.frame_mask[0])
    assert bool((over.frame_mask[1, 1] > 0).all()) is kept
    # Over r1 itself, which lacks b as well.
    over = labelled(dump, config, [[0, 70], [1, 60]], [[1, 60], [1, 70]], 3.0)
    assert over.clip_mask.tolist() == [[1, 0], [0, 1]]
    torch.testing.assert_close(over.frame_mask, plain.frame_mask)


def test_backgrounds_come_from_where_they_are_asked_from(sound_dump):
    for source, recordings in (("negative", {1}), ("random", {0, 1})):
        augment_ = {"background_p": 0.6, "background_from": source, "background_snr_db": [3, 9]}
        config = make_config(augment=augment_)
        dump = sound_dump(sounds(), config)
        vary = vary_epoch(pool_of(dump), config, 100, 400, np.random.default_rng(0))
        chosen = vary.background[:, 0] >= 0
        assert 0.5 < chosen.mean() < 0.7
        assert set(vary.background[chosen, 0]) == recordings
        assert np.isinf(vary.background_snr_db[~chosen]).all()
        assert vary.background_snr_db[chosen].min() >= 3
        assert vary.background_snr_db[chosen].max() <= 9
        if source == "negative":
            # Windows of 1 s that show 0.2 s of the span from 0.5 to 2 s.
            begin = (vary.background[chosen, 1] - 0.5) * 0.01
            assert ((begin + 1.0 > 0.5 + 0.19) & (begin < 2.0 - 0.19)).all()


def test_backgrounds_of_unlabelled_recordings(sound_dump):
    """They lie under windows, no window is drawn from them, and nothing is known of them."""
    augment_ = {"background_p": 1.0, "background_from": "unlabelled", "background_snr_db": [3, 9]}
    config = make_config(augment=augment_, data={"annotation": "complete"})
    dump = sound_dump(sounds(), config)
    tables, events = tables_and_events()
    training_set = make_training_set(
        tables, events[events["recording_id"] == "r0"], ["r0"], dump, background_ids=["r1"]
    )
    vary = vary_epoch(training_set, config, 100, 200, np.random.default_rng(0))
    assert set(vary.background[:, 0]) == {1}
    plan = plan_epoch(training_set, config, 100, 200, np.random.default_rng(0))
    assert set(plan[:, 0]) == {0}
    batch = read(dump, plan[:20], Variations.none(20), training_set=training_set)
    over = read(dump, plan[:20], vary, training_set=training_set)
    known = (batch.frame_target == 0) & (batch.frame_mask > 0)
    assert known.any()
    assert not (over.frame_mask[known] > 0).any()
    present = batch.frame_target > 0
    assert torch.equal(over.frame_mask[present], batch.frame_mask[present])
    with pytest.raises(CanopyError, match="no readable recordings of that subset"):
        vary_epoch(pool_of(dump), config, 100, 5, np.random.default_rng(0))


def test_no_rejected_rows_to_take_backgrounds_from(sound_dump):
    config = make_config(augment={"background_p": 1.0})
    dump = sound_dump(sounds(), config)
    training_set = replace(pool_of(dump), event_kind=np.zeros(2, dtype=np.int64))
    with pytest.raises(CanopyError, match="no rejected rows; set it to random"):
        vary_epoch(training_set, config, 100, 5, np.random.default_rng(0))


def test_a_background_adds_to_features_as_to_waveforms(sound_dump):
    """The two ways agree in what they make louder: powers against sampled sounds."""
    config = make_config(augment={"wave_p": 0.5, "background_p": 1.0})
    dump = sound_dump(sounds(), config)
    outs = []
    for wave in (False, True):
        vary = Variations.none(1)
        vary.wave[:] = wave
        vary.background[:] = [[1, 40]]
        vary.background_snr_db[:] = 0.0
        batch = read(dump, [[0, 70]], vary)
        outs.append(augment(batch, config.augment, rng(), InputKind.of(config)).x - batch.x)
    # Twice the power, in every band.
    for out in outs:
        assert float(out.exp().mean().log()) == pytest.approx(math.log(2), abs=0.5)
    levels = [out.mean(dim=3).flatten() for out in outs]
    torch.testing.assert_close(levels[0], levels[1], atol=0.5, rtol=0)
