"""Sounds of the demo: calls in their bands, levels as drawn, a matcher that matches."""

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from local.io.seeds import generator
from recipes.demo.backgrounds import draw_site, render_background
from recipes.demo.calls import SONGS, Individual, draw_individual, render
from recipes.demo.lookalikes import MARGIN_S, Matcher, front_end, make_template
from recipes.demo.mixing import mix_recording
from recipes.demo.planning import RecordingPlan
from recipes.demo.settings import settings_from
from recipes.demo.synthetic import SyntheticVoices

RATE = 32000
IDS = [f"{song.species}/{song.songtype}" for song in SONGS]


def test_species_are_as_many_and_as_spread_as_the_real_ones():
    assert len({song.species for song in SONGS}) >= 24
    kinds = [song.species for song in SONGS]
    assert sum(kinds.count(species) == 2 for species in set(kinds)) == 2
    assert min(song.low for song in SONGS) < 100
    assert max(song.high for song in SONGS) > 13000
    assert min(song.duration for song in SONGS) < 0.6
    assert max(song.duration for song in SONGS) > 7.9


@pytest.mark.parametrize("song", SONGS, ids=IDS)
def test_a_call_fills_its_box_and_not_more(song):
    call = render(song, Individual(), RATE, 8.0, np.random.default_rng(1))
    n = round(call.duration * RATE)
    assert call.duration == pytest.approx(song.duration, rel=0.01)
    assert len(call.wave) == n  # dry
    assert np.mean(call.wave**2) == pytest.approx(1.0, rel=1e-3)
    energy = np.abs(np.fft.rfft(call.wave)) ** 2
    frequency = np.fft.rfftfreq(n, 1 / RATE)
    margin = max(0.05 * (call.high - call.low), 30)
    inside = (frequency >= call.low - margin) & (frequency <= call.high + margin)
    assert energy[inside].sum() > 0.9 * energy.sum()
    edges = np.sqrt(np.mean(call.wave[: n // 10] ** 2)), np.sqrt(np.mean(call.wave[-n // 8 :] ** 2))
    assert min(edges) > 0.02  # sounds from the start of the box to its end


def test_individuals_differ_and_long_phrases_are_shortened():
    rng = np.random.default_rng(0)
    song = SONGS[-1]
    calls = [render(song, draw_individual(rng), RATE, 4.0, rng) for _ in range(8)]
    assert len({call.duration for call in calls}) > 1
    assert max(call.duration for call in calls) <= 4.0
    assert len({round(call.low) for call in calls}) > 4
    assert all(0.93 < call.low / song.low < 1.07 for call in calls)
    wet = render(song, Individual(reverb_s=0.5, reverb_level=0.5), RATE, 4.0, rng)
    assert len(wet.wave) > round(wet.duration * RATE)


def test_sites_differ_and_keep_their_level():
    rng = np.random.default_rng(0)
    waves = []
    for name in ("a", "b"):
        site = draw_site(name, RATE, rng)
        wave = render_background(site, 5 * RATE + 1, RATE, rng)
        assert wave.dtype == np.float32
        assert wave.shape == (5 * RATE + 1,)
        level = 10 * np.log10(np.mean(wave.astype(float) ** 2))
        assert abs(level - site.level_dbfs) < 2.1
        waves.append(np.log(np.abs(np.fft.rfft(wave))[: 2 * RATE].reshape(100, -1).mean(axis=1)))
    assert np.abs(waves[0] - waves[0].mean() - waves[1] + waves[1].mean()).max() > 0.3


def test_level_in_the_band_is_the_level_told():
    settings = settings_from({"size": "tiny", "decoys_per_minute": 0, "fp_ratio": 0})
    voices = SyntheticVoices(settings)
    front = front_end(settings.sample_rate)
    # Species 3: a narrow and clean song of 0.7 s; one call a recording.
    told, measured = [], []
    for index in range(6):
        plan = RecordingPlan(f"r{index}", "test", index, site=index, calls=[(0, False)])
        mix = mix_recording(plan, voices, [], front, settings)
        rng = generator(settings.seed, "recording", "test", index)
        noise = voices.background(index, "test", rng)
        call = mix.samples / 32767 - noise
        (event,) = mix.events
        band = butter(6, (event.low, event.high), "bandpass", fs=16000, output="sos")
        box = slice(int(event.onset * 16000), int(event.offset * 16000))
        power = [np.mean(sosfiltfilt(band, wave)[box] ** 2) for wave in (call, noise)]
        told.append(event.snr_db)
        measured.append(10 * np.log10(power[0] / power[1]))
    # Frames are windowed and cut at whole hops, and the filter is no box: no better than this.
    np.testing.assert_allclose(measured, told, atol=1.5)
    assert abs(np.mean(np.subtract(measured, told))) < 0.7


def test_power_adds_up_to_that_of_the_wave():
    front = front_end(RATE)
    wave = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    assert front.power(wave).sum(axis=1).mean() == pytest.approx(1.0, rel=0.03)


def test_match_is_the_correlation_coefficient_of_the_patch():
    front = front_end(16000)
    rng = np.random.default_rng(0)
    song = next(song for song in SONGS if song.species == 3)
    template = make_template([render(song, Individual(), 16000, 4.0, rng)], front)
    wave = rng.standard_normal(6 * 16000).astype(np.float32)
    power = front.power(wave)
    score = Matcher(power, front, 6.0).score(template)
    level = front.pooled_db(power)
    level = np.clip(level - np.median(level, axis=1, keepdims=True), 0, 30)[template.bands]
    length = template.shape.shape[1]
    assert len(score) == level.shape[1] - length + 1
    for at in (0, 17, len(score) - 1):
        patch = level[:, at : at + length].ravel()
        expected = np.corrcoef(patch, template.shape.ravel())[0, 1]
        assert score[at] == pytest.approx(expected, abs=1e-4)


def test_best_match_finds_the_call_and_keeps_clear_of_what_is_taken():
    front = front_end(16000)
    rng = np.random.default_rng(0)
    song = next(song for song in SONGS if song.species == 3)
    call = render(song, Individual(), 16000, 4.0, rng)
    template = make_template([call], front)
    wave = 0.1 * rng.standard_normal(6 * 16000).astype(np.float32)
    wave[32000 : 32000 + len(call.wave)] += call.wave
    matcher = Matcher(front.power(wave), front, 6.0)
    (onset, score), (second, lower) = matcher.best(template, [], 2)
    assert onset == pytest.approx(2.0, abs=0.03)
    assert score > 0.7 > lower
    assert abs(second - onset) >= template.duration
    ((free, _),) = matcher.best(template, [(2.0, 2.0 + call.duration)], 1)
    assert free + template.duration <= 2.0 - MARGIN_S or free >= 2.0 + call.duration + MARGIN_S
    assert matcher.best(template, [(0.0, 6.0)], 1) == []
