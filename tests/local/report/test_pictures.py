import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from local.report.pictures import (
    frequency_ticks,
    panel_figure,
    pool,
    shown_labels,
    trace,
    write_panel_picture,
)
from local.report.records import Detection, EventKind
from local.report.theme import to_svg


def test_pool_averages_rows_and_keeps_the_loudest_moment():
    feats = np.zeros((4, 6))
    feats[0, 1] = 8.0
    np.testing.assert_array_equal(pool(feats, 2, 3), [[4, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(pool(feats, 10, 10), feats)


def test_pool_covers_every_cell_when_sizes_do_not_divide():
    rng = np.random.default_rng(0)
    feats = rng.normal(size=(7, 1001))
    pooled = pool(feats, 7, 64)
    assert pooled.shape == (7, 64)
    np.testing.assert_array_equal(pooled.max(axis=1), feats.max(axis=1))


@pytest.mark.parametrize(
    ("low", "high", "unit"), [(94, 13700, "kHz"), (8, 400, "Hz"), (15000, 125000, "kHz")]
)
def test_ticks_lie_where_their_frequency_is(low, high, unit):
    centres = np.geomspace(low, high, 64)
    positions, texts, found = frequency_ticks(centres, n_ticks=8)
    assert found == unit
    assert 2 <= len(texts) <= 9
    hertz = np.array([float(text) for text in texts]) * (1000 if unit == "kHz" else 1)
    np.testing.assert_allclose(np.interp(positions, np.arange(64), centres), hertz, rtol=0.01)


def test_ticks_of_a_narrow_band_are_its_ends():
    positions, texts, _ = frequency_ticks(np.array([1100.0, 1200.0, 1300.0]), n_ticks=4)
    assert sorted(positions) == [0, 2]
    assert sorted(texts) == ["1.1", "1.3"]


def test_trace_is_the_probability_at_the_middle_of_frames(make_panel):
    panel = make_panel()
    times, values = trace(panel, "owl")
    np.testing.assert_allclose(times, (np.arange(90) + 0.5) * 0.2)
    np.testing.assert_allclose(values, expit(panel.frame_logit[1].astype(float)))


def test_a_thinned_trace_keeps_a_single_high_frame(make_panel):
    logit = np.full((4, 5000), -9.0)
    logit[3, 1234] = 3.0
    times, values = trace(make_panel(frame_logit=logit, frame_hop_s=0.01), "wren", 100)
    assert len(values) == 100
    assert values.max() == pytest.approx(expit(3.0))
    assert times[values.argmax()] == pytest.approx(12.345, abs=0.5)


def test_a_class_with_given_events_is_shown_before_higher_scores(make_panel):
    logit = np.array([[5.0], [-9.0], [4.0], [3.0]])
    events = [Detection(0, 1, "owl", kind="true"), Detection(0, 1, "wren", 0.9, "detected")]
    panel = make_panel(frame_logit=logit, events=events)
    assert shown_labels(panel, 2) == ["frog", "owl"]
    assert shown_labels(panel, 9) == ["frog", "toad", "wren", "owl"]


def test_the_picture_holds_each_kind_apart_from_its_colour(make_panel):
    events = [Detection(1, 2, "owl", kind=kind) for kind in EventKind]
    figure = panel_figure(make_panel(events=events, labels=["owl", "a", "b", "c"]))
    strip = next(
        axes for axes in figure.axes if any(text.get_text() == "owl" for text in axes.texts)
    )
    looks = {
        (patch.get_hatch(), str(patch.get_linestyle()), patch.get_facecolor()[3], patch.get_y())
        for patch in strip.patches
        if hasattr(patch, "get_y")
    }
    assert len(looks) == len(EventKind)


def test_boxes_lie_at_their_time_and_band(make_panel):
    event = Detection(3.0, 4.5, "owl", low_freq=300.0, high_freq=900.0)
    panel = make_panel(events=[event])
    box = panel_figure(panel).axes[0].patches[0]
    assert (box.get_x(), box.get_width()) == (3.0, 1.5)
    rows = [box.get_y(), box.get_y() + box.get_height()]
    hertz = np.interp(rows, np.arange(40), panel.mel_centres_hz)
    np.testing.assert_allclose(hertz, [300, 900], rtol=1e-6)


@pytest.mark.parametrize("width_px", [900, 350])
def test_pictures_are_small_and_every_axis_has_the_same_time(make_panel, width_px):
    rng = np.random.default_rng(1)
    panel = make_panel(
        feats=rng.normal(size=(128, 6000)),
        mel_centres_hz=np.geomspace(50, 16000, 128),
        hop_s=0.01,
        frame_logit=rng.normal(size=(4, 3000)),
        frame_hop_s=0.02,
    )
    figure = panel_figure(panel, width_px)
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, 60.0)}
    # Noise is the worst that a picture can hold.
    assert len(to_svg(figure)) < 150_000


@pytest.mark.parametrize(
    "changes",
    [
        {"feats": np.full((40, 900), np.nan)},
        {"feats": np.zeros((40, 1))},
        {"frame_logit": np.full((4, 90), np.nan)},
        {"frame_logit": np.zeros((4, 0))},
        {"frame_logit": np.zeros((0, 9)), "labels": []},
        {"events": []},
        {"events": [Detection(1, 2, "unknown $label$ \x00")]},
        {"feats": np.zeros((1, 50)), "mel_centres_hz": np.array([500.0])},
    ],
)
@pytest.mark.filterwarnings("error")
def test_odd_panels_are_drawn_without_a_warning(make_panel, changes):
    assert to_svg(panel_figure(make_panel(**changes))).startswith(b"<?xml")


def test_a_picture_for_documentation_is_a_small_png(make_panel, tmp_path):
    path = tmp_path / "images" / "demo.png"
    write_panel_picture(path, make_panel(), width_px=600, scale=2)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] == 1200
    assert path.stat().st_size < 150_000
