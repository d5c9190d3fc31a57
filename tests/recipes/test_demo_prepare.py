"""Preparation of the demo: simulate where needed, then the three tables, truth unopened."""

import shutil

import pandas as pd
import pytest

from local.data.tables import read_tables
from local.io.errors import CanopyError
from recipes.demo.prepare import VERSION, main
from tests import golden

pytestmark = pytest.mark.slow


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text("prepare: {size: tiny, n_train: 30, n_test: 4, seed: 1}\n")
    return path


def options(tmp_path, conf, *more):
    places = ["--datadir", str(tmp_path / "data"), "--out", str(tmp_path / "dump" / "tables")]
    return [*places, "--conf", str(conf), "--nj", "1", *more]


def test_tables_of_a_simulation(tmp_path, conf):
    assert main(options(tmp_path, conf)) == 0
    tables = read_tables(tmp_path / "dump" / "tables")
    assert tables.labels == [f"s{c}" for c in range(6)]
    assert tables.recordings["subset"].value_counts().to_dict() == {"train": 30, "test": 4}
    tp = pd.read_csv(tmp_path / "data" / "train_tp.csv")
    fp = pd.read_csv(tmp_path / "data" / "train_fp.csv")
    assert (tables.events["polarity"] == 1).sum() == len(tp)
    assert (tables.events["polarity"] == -1).sum() == len(fp)
    sites = pd.read_csv(tmp_path / "data" / "sites.csv").set_index("recording_id")["site"]
    groups = tables.recordings.set_index("recording_id")["group"]
    assert groups.to_dict() == sites.to_dict()


def test_the_truth_stays_closed_and_nothing_is_made_twice(tmp_path, conf):
    assert main(options(tmp_path, conf)) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.flac")}
    shutil.rmtree(tmp_path / "data" / "truth")
    shutil.rmtree(tmp_path / "dump")
    assert main(options(tmp_path, conf)) == 0
    assert len(read_tables(tmp_path / "dump" / "tables").events) > 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.flac")} == before


def test_other_tables_are_another_version(tmp_path, conf):
    assert main(options(tmp_path, conf)) == 0
    golden.check("prepare demo", VERSION, golden.tables(tmp_path / "dump" / "tables"))


def test_song_types_become_classes(tmp_path, conf):
    assert main(options(tmp_path, conf, "--set", "prepare.song_types=true")) == 0
    assert len(read_tables(tmp_path / "dump" / "tables").labels) == 7


def test_faults_are_told(tmp_path, conf):
    with pytest.raises(CanopyError, match=r"prepare\.n_tarin.*n_train"):
        main(options(tmp_path, conf, "--set", "prepare.n_tarin=3"))
    assert main(options(tmp_path, conf)) == 0
    with pytest.raises(CanopyError, match="give another --datadir"):
        main(options(tmp_path, conf, "--set", "prepare.seed=2"))
