"""The simulation of song that `tests/bench/song.py` judges by has what it says."""

import soundfile

from tests.bench.song import spans
from tests.simulated_calls import make_song


def test_the_simulation_has_what_it_says(tmp_path):
    make_song(tmp_path, n=8)
    parts = {path.parent.name for path in tmp_path.rglob("*.wav")}
    assert parts == {"train", "left_out"}
    table = spans(tmp_path)
    lengths = table["offset"] - table["onset"]
    assert lengths.min() > 0.05
    assert lengths.max() < 0.22
    gaps = table.groupby("recording_id").apply(
        lambda rows: (rows["onset"].shift(-1) - rows["offset"]).dropna(), include_groups=False
    )
    assert gaps.min() > 0.018
    assert (gaps < 0.031).mean() > 0.5
    assert {soundfile.info(path).samplerate for path in tmp_path.rglob("*.wav")} == {32000}
