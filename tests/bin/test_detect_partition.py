"""bin/detect.py --partition: an archive's tables by site and date, in shares or not."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from local.detect import partition as partition_room
from local.io.errors import CanopyError
from local.jobs.interruption import Interrupted
from tests.scripts import load_script
from tests.toy_detector import LABELS, RATE, make_published, sound

detect = load_script("detect")

FILES = [
    *("north/20210314_053000.WAV", "north/20210314_060000.WAV", "north/20210315_053000.WAV"),
    *("Data/A=1_20210314_053000.wav", "Data/007_20210314_180000.wav", "old/tape 3.wav"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_published(tmp_path_factory.mktemp("model") / "toy", n_networks=1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    for number, name in enumerate(FILES):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, sound(8 + number, number), RATE)
    (folder / "north" / "20210316_000000.WAV").write_bytes(b"no sound")
    return folder


def run(*options):
    given = (*options, "--threshold", 0.6, "--max-invalid-share", 0.5)
    return detect.main([str(option) for option in given])


@pytest.fixture(scope="module")
def out(model, archive, tmp_path_factory):
    """The archive detected in one go."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert run(model, archive, "--out", folder, "--partition", "--format", "parquet", "raven") == 0
    return folder


@pytest.fixture(scope="module")
def plain(model, archive, tmp_path_factory):
    """The same as one table."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    assert run(model, archive, "--out", folder, "--format", "parquet", "raven") == 0
    return folder


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "detect.json"
    }


def test_the_rows_are_those_of_one_table(out, plain):
    whole = pd.read_parquet(plain / "detections.parquet")
    days = pd.read_parquet(out / "detections")
    assert len(days) == len(whole) > 10
    order = ["recording_id", "onset", "label"]
    columns = list(whole.columns)
    pd.testing.assert_frame_equal(
        days.sort_values(order, ignore_index=True)[columns].astype({"recording_id": str}),
        whole.sort_values(order, ignore_index=True).astype({"recording_id": str}),
        check_dtype=False,
    )
    assert set(days["site"].astype(str)) == {"north", "A=1", "007", "unknown"}
    raven = {name: content for name, content in tree(plain).items() if name.startswith("raven")}
    assert raven.items() <= tree(out).items()


def test_folders_are_of_site_and_date(out):
    folders = {str(path.parent.relative_to(out)) for path in out.glob("detections/*/*/*.parquet")}
    assert folders == {
        "detections/site=north/date=2021-03-14",
        "detections/site=north/date=2021-03-15",
        "detections/site=north/date=2021-03-16",
        "detections/site=A%3D1/date=2021-03-14",
        "detections/site=007/date=2021-03-14",
        "detections/site=unknown/date=unknown",
    }
    assert not (out / ".work").exists()
    assert not (out / "detections.parquet").exists()


def test_detections_know_the_time_of_day(out):
    days = pd.read_parquet(out / "detections")
    known = days[days["recording_id"] == "north/20210314_060000"]
    expected = pd.Timestamp("2021-03-14 06:00:00") + pd.to_timedelta(known["onset"], unit="s")
    assert (known["time"] - expected).abs().max() < pd.Timedelta("2ms")
    assert days.loc[days["recording_id"] == "old/tape 3", "time"].isna().all()


def test_what_was_listened_to(out, plain):
    table = pd.read_parquet(out / "by_date.parquet")
    text = pd.read_csv(out / "by_date.csv", dtype={"site": str})
    pd.testing.assert_frame_equal(table, text, check_dtype=False)
    assert len(table) == 6 * len(LABELS)
    summary = pd.read_csv(plain / "summary.csv")
    for label, part in table.groupby("label"):
        rows = summary[summary["label"] == label]
        assert part["detections"].sum() == rows["detections"].sum()
        assert part["detected_s"].sum() == pytest.approx(rows["detected_s"].sum())
        assert part["max_score"].max() == pytest.approx(rows["max_score"].max())
        assert part["recordings_with"].sum() == (rows["detections"] > 0).sum()
        # The denominator stands beside each class, also where nothing was found.
        assert part["hours"].sum() * 3600 == pytest.approx(sum(8 + n for n in range(len(FILES))))
    north = table[(table["site"] == "north") & (table["label"] == LABELS[0])]
    assert north["recordings"].tolist() == [2, 1, 0]
    assert north["unreadable"].tolist() == [0, 0, 1]
    assert north["hours"].tolist() == pytest.approx([17 / 3600, 10 / 3600, 0])


def test_recordings_are_listed(out):
    listed = pd.read_parquet(out / "recordings")
    assert len(listed) == len(FILES) + 1
    bad = listed[listed["status"] == "invalid"]
    assert bad["recording_id"].tolist() == ["north/20210316_000000"]
    assert "20210316_000000.WAV" in bad["reason"].iloc[0]
    assert listed["detections"].sum() == len(pd.read_parquet(out / "detections"))


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 8])
def test_shares_make_the_same_files(model, archive, out, tmp_path, n):
    shared = tmp_path / "shared"
    options = ("--out", shared, "--partition", "--format", "parquet", "raven")
    for k in range(n):
        assert run(model, archive, *options, "--shard", f"{k}/{n}") == 0
    before = {p: p.stat().st_mtime_ns for p in shared.glob("detections/*/*/*.parquet")}
    assert len(before) == 6
    assert run(model, archive, *options) == 0
    # Gathering takes what the shares have written.
    assert before == {p: p.stat().st_mtime_ns for p in shared.glob("detections/*/*/*.parquet")}
    assert tree(shared) == tree(out)


def test_a_share_that_is_missing_is_made_up_for(model, archive, out, tmp_path):
    shared = tmp_path / "shared"
    options = ("--out", shared, "--partition", "--format", "parquet", "raven")
    run(model, archive, *options, "--shard", "1/3")
    shutil.rmtree(next(shared.glob("detections/*/*")))  # and one that lost its table
    assert run(model, archive, *options) == 0
    assert tree(shared) == tree(out)


def test_what_was_stopped_between_days_goes_on(model, archive, out, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    options = ("--out", folder, "--partition", "--format", "parquet", "raven")
    seen = []

    def stop(place):
        seen.append(place)
        if len(seen) == 3:
            raise Interrupted("SIGTERM", place)

    monkeypatch.setattr(partition_room, "stop_if_asked", stop)
    with pytest.raises(Interrupted):
        run(model, archive, *options)
    assert len(list(folder.glob("detections/*/*/*.parquet"))) == 2
    monkeypatch.undo()
    written = []
    original = partition_room.Partitions._write_day
    monkeypatch.setattr(
        partition_room.Partitions,
        "_write_day",
        lambda self, *rest: (written.append(rest[1]), original(self, *rest))[1],
    )
    assert run(model, archive, *options) == 0
    assert len(written) == 4
    assert tree(folder) == tree(out)


def test_trees_of_two_jobs_lie_together(model, archive, out, tmp_path):
    """Half of a day each, by two jobs: one table of all."""
    for k, files in enumerate((FILES[:1], FILES[1:])):
        paths = [archive / name for name in files]
        run(model, *paths, "--out", tmp_path / str(k), "--partition")
        shutil.copytree(tmp_path / str(k) / "detections", tmp_path / "both", dirs_exist_ok=True)
    both, whole = pd.read_parquet(tmp_path / "both"), pd.read_parquet(out / "detections")
    order = ["path", "onset", "label"]
    both, whole = (frame.sort_values(order, ignore_index=True) for frame in (both, whole))
    np.testing.assert_array_equal(both["score"], whole["score"])
    assert (tmp_path / "both" / "site=north" / "date=2021-03-14").is_dir()
    assert len(list((tmp_path / "both").glob("site=north/date=2021-03-14/*"))) == 2


def test_days_that_changed_or_went_leave_nothing(model, archive, tmp_path):
    copy = tmp_path / "archive"
    shutil.copytree(archive, copy)
    (copy / "north" / "20210316_000000.WAV").unlink()
    late = copy / "north" / "20210314_060000.WAV"
    late.rename(tmp_path / "late")
    options = (model, copy, "--out", tmp_path / "out", "--partition")
    run(*options)
    (tmp_path / "late").rename(late)
    (copy / "old" / "tape 3.wav").unlink()
    run(*options, "--force")
    assert not list((tmp_path / "out").rglob("site=unknown"))
    day = tmp_path / "out" / "recordings" / "site=north" / "date=2021-03-14"
    assert len(list(day.iterdir())) == 1
    assert len(pd.read_parquet(day)) == 2


def test_shares_of_other_sites_are_another_job(model, archive, tmp_path):
    options = (model, archive, "--out", tmp_path / "out", "--partition")
    run(*options, "--shard", "0/2")
    for other in ((), ("--partition", "--site-date-pattern", "(?P<site>north)")):
        with pytest.raises(CanopyError, match="holds other results"):
            run(*options[:-1], *other)


def test_other_sites_are_another_job(model, archive, tmp_path):
    options = (model, archive, "--out", tmp_path / "out", "--partition")
    run(*options)
    with pytest.raises(CanopyError, match="holds other results"):
        run(*options, "--site-date-pattern", "(?P<site>north)")


def test_duckdb_reads_them_as_one_table(out):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    found = duckdb.sql(
        f"select site, count(*) from read_parquet('{out}/detections/**/*.parquet', "
        "hive_partitioning=true, hive_types_autocast=false) group by site"
    ).fetchall()
    expected = pd.read_parquet(out / "detections").groupby("site", observed=True).size()
    assert dict(found) == expected.to_dict()
