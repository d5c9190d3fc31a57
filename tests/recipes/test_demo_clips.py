"""Clips mode: sources on one side only, silence cut away, backgrounds of their folders."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.io.errors import CanopyError
from recipes.demo.clips import (
    ClipVoices,
    _find_pieces,
    clips_digest,
    list_clips,
    settle_sources,
    split_sources,
)
from recipes.demo.competition import identity, simulate
from recipes.demo.settings import settings_from

RATE = 22050
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "esc10"


def tone(hertz: float) -> np.ndarray:
    """Silence, half a second of tone, a pause, a quarter of a second of it, padding."""
    time = np.arange(RATE // 2) / RATE
    sound = 0.5 * np.sin(2 * np.pi * hertz * time)
    gap = np.zeros(RATE)
    return np.concatenate([gap, sound, gap, sound[: RATE // 4], gap])


@pytest.fixture
def clips(tmp_path) -> Path:
    """Two classes of six sources with two clips each, told apart by pitch, and a background."""
    root = tmp_path / "clips"
    rng = np.random.default_rng(0)
    rows = []
    for folder, base in (("bark", 500), ("crow", 3000)):
        (root / folder).mkdir(parents=True)
        for source in range(6):
            for take in "AB":
                name = f"{folder}/{source}-{take}.wav"
                soundfile.write(root / name, tone(base + 200 * source), RATE)
                rows.append((name, f"{folder}{source}"))
    (root / "wind").mkdir()
    for i in range(4):
        name = f"wind/{i}.wav"
        soundfile.write(root / name, 0.1 * rng.standard_normal(2 * RATE), RATE)
        rows.append((name, f"wind{i}"))
    pd.DataFrame(rows, columns=["filename", "src_file"]).to_csv(root / "list.csv", index=False)
    return root


def settings(root: Path, **more):
    values = {"size": "tiny", "clips": str(root), "background": ["wind"], **more}
    return settings_from(values)


def heard(voices: ClipVoices, subset: str, site: int, rng: np.random.Generator) -> set[int]:
    """Numbers of the sources of barks that are heard at a site, by their pitch."""
    found = set()
    for _ in range(40):
        call = voices.call(0, voices.caller(0, subset, site, rng), rng)
        spectrum = np.abs(np.fft.rfft(call.wave, 16000))
        found.add(round((int(np.argmax(spectrum)) - 500) / 200))
    return found


def test_pieces_are_what_sounds(clips):
    clip = list_clips(settings(clips))[0]
    first, second = _find_pieces(clip)
    assert (first.start, first.end) == pytest.approx((1.0, 1.5), abs=0.02)
    assert (second.start, second.end) == pytest.approx((2.5, 2.75), abs=0.02)
    assert first.low <= 500 <= first.high < 700


def test_a_source_is_on_one_side_only(clips):
    voices = ClipVoices(settings(clips))
    sides = {
        subset: {
            piece.source
            for (_, side), pieces in voices.pieces.items()
            if side == subset
            for piece in pieces
        }
        for subset in ("train", "test")
    }
    assert not sides["train"] & sides["test"]
    assert len(sides["train"] | sides["test"]) == 16
    assert voices.names == ["bark", "crow"]


def test_calls_of_test_come_from_test_sources(clips):
    voices = ClipVoices(settings(clips))
    side = split_sources(list_clips(settings(clips)), 0.3, 0)
    rng = np.random.default_rng(0)
    expected = {i for i in range(6) if side[f"bark{i}"] == "test"}
    assert all(heard(voices, "test", site, rng) == expected for site in range(3))


def test_a_source_of_the_train_side_lives_at_one_site(clips):
    choice = settings(clips, n_train_sites=3)
    side = split_sources(list_clips(choice), 0.3, 0)
    voices, rng = ClipVoices(choice), np.random.default_rng(0)
    found = [heard(voices, "train", site, rng) for site in range(3)]
    assert sorted(source for site in found for source in site) == [
        i for i in range(6) if side[f"bark{i}"] == "train"
    ]
    assert all(found)
    # More sites than sources: some sites share, none is mute.
    voices = ClipVoices(settings(clips, n_train_sites=9))
    shared = [heard(voices, "train", site, rng) for site in range(9)]
    assert all(len(site) == 1 for site in shared)
    assert set.union(*shared) == set.union(*found)


def test_a_source_of_two_classes_settles_once():
    sources = {"bark": {"a", "b", "c", "d"}, "crow": {"a", "b", "e"}}
    settled = settle_sources(sources, 2, 0)
    assert [len(site) for site in settled["bark"]] == [2, 2]
    bark, crow = settled["bark"], settled["crow"]
    assert all({"a", "b"} & crow[site] == {"a", "b"} & bark[site] for site in range(2))
    assert set.union(*crow) == sources["crow"]
    assert settle_sources(sources, 2, 0) == settled


def test_template_examples_are_of_the_train_side(clips):
    voices = ClipVoices(settings(clips))
    side = split_sources(list_clips(settings(clips)), 0.3, 0)
    for call in voices.examples(0):
        peak = int(np.argmax(np.abs(np.fft.rfft(call.wave, 16000))))
        assert side[f"bark{round((peak - 500) / 200)}"] == "train"


def test_sources_shared_by_classes_and_clips_without_a_source(clips):
    (clips / "list.csv").unlink()
    found = list_clips(settings(clips))
    assert len({clip.source for clip in found}) == len(found)
    table = pd.DataFrame({"filename": ["0-A.wav"], "src_file": ["one"]})
    table.to_csv(clips.parent / "s.csv", index=False)
    found = list_clips(settings(clips, sources=str(clips.parent / "s.csv")))
    # Both classes have a file of that name: they share its source, and with it the side.
    assert [clip.folder for clip in found if clip.source == "one"] == ["bark", "crow"]
    assert set(split_sources(found, 0.3, 0).values()) == {"train", "test"}


def test_competition_of_clips(clips, tmp_path):
    choice = settings(clips, n_train=24, n_test=6)
    simulate(choice, tmp_path / "out")
    events = pd.read_csv(tmp_path / "out" / "truth" / "train_events.csv")
    assert set(events["species_id"]) == {0, 1}
    assert (events["t_max"] - events["t_min"]).between(0.2, 0.6).all()
    tp = pd.read_csv(tmp_path / "out" / "train_tp.csv")
    assert tp.groupby("species_id").size().min() >= 3


def test_identity_is_of_the_sounds_not_of_their_place(clips, tmp_path):
    moved = tmp_path / "elsewhere"
    before = identity(settings(clips))
    clips.rename(moved)
    assert identity(settings(moved)) == before
    soundfile.write(moved / "bark" / "0-A.wav", tone(555), RATE)
    assert identity(settings(moved)) != before
    assert len(clips_digest(settings(moved))) == 64


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"background": ["rain"]}, "no class folder 'rain'; it has bark, crow, wind"),
        ({"background": ["wind", "crow"]}, "fewer than two class folders"),
        ({"sources": "absent.csv"}, r"absent\.csv is not readable"),
        ({"clips": "nowhere"}, "nowhere is no folder"),
    ],
)
def test_faults_are_told(clips, more, message):
    with pytest.raises(CanopyError, match=message):
        list_clips(settings(clips, **more))


def test_a_class_of_one_source_and_a_silent_class_are_told(clips):
    table = pd.read_csv(clips / "list.csv")
    table.loc[table["filename"].str.startswith("crow"), "src_file"] = "one"
    table.to_csv(clips / "list.csv", index=False)
    with pytest.raises(CanopyError, match="class 'crow' has 1 sources"):
        ClipVoices(settings(clips))
    (clips / "list.csv").unlink()
    for path in (clips / "crow").iterdir():
        soundfile.write(path, np.zeros(RATE), RATE)
    with pytest.raises(CanopyError, match="clips of class 'crow' are all silent"):
        ClipVoices(settings(clips))


@pytest.mark.skipif(not REAL.is_dir(), reason="no real clips in ../shared/data/esc10")
def test_real_clips_keep_their_sources_apart():
    choice = settings_from({"clips": str(REAL), "background": ["rain", "sea_waves"]})
    found = list_clips(choice)
    side = split_sources(found, choice.test_clip_share, choice.seed)
    table = pd.read_csv(REAL / "esc10.csv", dtype=str)
    assert {clip.source for clip in found} == set(table["src_file"])
    for _, group in table.groupby("category"):
        share = group["src_file"].map(side).eq("test").mean()
        assert 0.1 < share < 0.5
