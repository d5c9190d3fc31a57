"""The tiny demo through ./run.sh: all six stages, again, and after a loss.

The stages before the last find damaged files where the truth lies: whoever opened one would fail.
"""

import html.parser
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from local.config import load_config
from local.data.tables import read_tables
from local.inference.score_files import load_scores
from local.labels.soft_labels import load_soft_labels
from local.models.checkpoint import load_checkpoint
from local.scoring.metrics.lwlrap import lwlrap
from recipes.demo.competition import simulate
from recipes.demo.prepare import PrepareConfig
from recipes.demo.settings import settings_from

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf/demo/tiny.yaml"
STAGES = ("preprocess", "split", "train", "infer", "relabel", "submit")


class Clone:
    """./run.sh on folders of this test."""

    def __init__(self, folder: Path, venv: Path) -> None:
        self.data, self.dump = folder / "data", folder / "dump"
        self.exp = folder / "exp" / "tiny"
        self.venv = venv

    def run(self, *options: str, **more: str) -> SimpleNamespace:
        command = [ROOT / "run.sh", "--conf", CONF, "--datadir", self.data, "--dumpdir", self.dump]
        command += ["--expdir", self.exp.parent, "--device", "cpu", "--nj", "2", *options]
        hidden = ("PYTHONPATH", "SLURM_CPUS_PER_TASK", "SLURM_SUBMIT_DIR")
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        environment |= {"VENV": str(self.venv), **more}
        begun = time.monotonic()
        ran = subprocess.run(
            list(map(str, command)), env=environment, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - begun
        return SimpleNamespace(rc=ran.returncode, out=ran.stdout, err=ran.stderr, seconds=seconds)


@pytest.fixture(scope="module")
def clone(tmp_path_factory, ready_environment):
    """Stages 0 to 4 with the truth damaged, then all of them with the truth."""
    folder = tmp_path_factory.mktemp("tiny")
    clone = Clone(folder, ready_environment(folder / "venv"))
    settings = settings_from(load_config(CONF).prepare, PrepareConfig)
    simulate(settings, clone.data, 2)
    truth, closed = clone.data / "truth", clone.data.parent / "closed"
    truth.rename(closed)
    truth.mkdir()
    for path in closed.glob("*.csv"):
        (truth / path.name).write_bytes(b"\xff\xfe\x00 not for you\n")
    clone.first = clone.run("--stop-stage", "relabel")
    shutil.rmtree(truth)
    closed.rename(truth)
    clone.second = clone.run()
    return clone


def test_all_stages_run_and_say_what_came_out(clone):
    assert clone.first.rc == 0, clone.first.err
    assert clone.second.rc == 0, clone.second.err
    for number, name in enumerate(STAGES):
        assert f"stage {number} ({name})" in clone.second.err
    assert "report: " in clone.second.err
    table = clone.second.out.splitlines()
    assert table[0].split()[:2] == ["cycle", "score"] or table[0].split()[0] == "cycle"
    assert any("test, truth, as submitted" in line for line in table)
    print(f"stages 0 to 4 took {clone.first.seconds:.0f} s, the rest {clone.second.seconds:.0f} s")


def test_what_was_done_is_skipped_and_says_so(clone):
    skipped = re.findall(r"(\S+)\.done\.json: done before", clone.second.err)
    names = [re.sub(r".*/(dump|exp)/", "", path) for path in skipped]
    (features,) = {name.split("/")[0] for name in names if name.endswith("/preprocess")}
    expected = ["tables/prepare", f"{features}/preprocess", "tiny/split"]
    for cycle in (0, 1):
        expected += ["tiny/cycle1/relabel"] * cycle
        expected += [f"tiny/cycle{cycle}/fold{fold}/train" for fold in (0, 1)]
        for fold in (0, 1):
            expected += [f"tiny/cycle{cycle}/fold{fold}/{stage}" for stage in ("infer", "further")]
        expected.append(f"tiny/cycle{cycle}/merge")
    assert names == expected


def test_a_finished_run_changes_nothing_and_needs_no_pytorch(clone, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('a script was started')\n")
    folders = (clone.dump, clone.exp.parent)
    before = {path: path.stat().st_mtime_ns for top in folders for path in top.rglob("*.*")}
    ran = clone.run(PYTHONPATH=str(tmp_path))
    assert (ran.rc, ran.out) == (0, ""), ran.err
    assert "submit.done.json: done before" in ran.err
    after = {path: path.stat().st_mtime_ns for top in folders for path in top.rglob("*.*")}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {".lock"}
    # Where one stage has work to do, its script is started.
    assert "a script was started" in clone.run("--force", PYTHONPATH=str(tmp_path)).err


def test_every_file_is_there_and_opens(clone):
    """Pins defect 12 of earlier systems: only the first fold was logged."""
    tables = read_tables(clone.dump / "tables")
    assert len(tables.labels) == 6
    ids = tables.recordings["recording_id"].tolist()
    (manifest,) = clone.dump.glob("*/manifest.csv")
    assert pd.read_csv(manifest)["recording_id"].tolist() == ids
    for name in ids:
        with np.load(manifest.parent / f"{name}.npz", allow_pickle=False) as stored:
            assert stored["feats"].shape[0] == 32
            assert {"sample_rate", "hop_length", "duration", "schema"} <= set(stored.files)
    folds = pd.read_csv(clone.exp / "folds.csv")
    assert set(folds["recording_id"]) == set(ids)
    for cycle in (0, 1):
        folder = clone.exp / f"cycle{cycle}"
        for fold in (0, 1):
            part = folder / f"fold{fold}"
            for name in ("best", "last", "previous"):
                load_checkpoint(part / f"{name}.pt")
            log = pd.read_csv(part / "log.csv")
            assert log["epoch"].tolist() == [1, 2, 3]
            assert {"loss_total", "loss_clip", "loss_frame", "lr", "skipped_steps"} <= set(log)
            timing = pd.read_csv(part / "timing.csv")
            assert timing["epoch"].tolist() == [1, 2, 3]
            assert (timing[["seconds", "windows_per_s"]] > 0).all(axis=None)
            assert list((part / "tensorboard").glob("events.out.tfevents.*"))
            record = json.loads((part / "run.json").read_text())
            assert {"commit", "torch", "device", "seed", "command"} <= set(record)
            assert set(pd.read_csv(part / "seen.csv")) == {"recording_id", "group"}
        for name in ("oof", "test"):
            scores, members = load_scores(folder / f"{name}.npz")
            assert scores.labels == tables.labels
            assert members["clip_logit"].dtype == np.float32
            assert np.isfinite(members["clip_logit"]).all()
            assert all(frames.shape[0] == 6 for frames in scores.frames)
    assert set(pd.read_csv(clone.exp / "cycle1" / "pseudo_summary.csv")["label"]) == set(
        tables.labels
    )
    soft = load_soft_labels(clone.exp / "cycle1" / "soft_labels.npz")
    assert set(soft.recording_ids) == set(tables.subset("train")["recording_id"])
    resolved = load_config(clone.exp / "config.yaml")
    assert resolved == load_config(CONF)
    for stage in ("check", "preprocess", "split", "train", "infer", "relabel", "submit"):
        assert (clone.exp / "logs" / f"{stage}.log").stat().st_size > 0 or stage == "check"


def test_nothing_temporary_is_left(clone):
    left = [p for top in (clone.dump, clone.exp) for p in top.rglob("*") if ".tmp" in p.name]
    assert left == []


def test_the_submission_joins_the_sample(clone):
    sample = pd.read_csv(clone.data / "sample_submission.csv")
    submission = pd.read_csv(clone.exp / "submission.csv")
    assert submission.columns.tolist() == sample.columns.tolist()
    assert submission["recording_id"].tolist() == sample["recording_id"].tolist()
    values = submission.drop(columns="recording_id").to_numpy()
    assert ((values > 0) & (values < 1)).all()
    assert len(np.unique(values)) == values.size


def test_results_have_intervals_and_stand_for_the_submission(clone):
    results = json.loads((clone.exp / "results.json").read_text())
    assert [entry["cycle"] for entry in results["cycles"]] == [0, 1]
    names = {"oof_known", "oof_truth", "test_truth", "test_truth_raw"}
    for entry in results["cycles"]:
        assert set(entry["scores"]) == names
        for score in entry["scores"].values():
            assert score["low"] < score["value"] < score["high"]
            assert score["chance"] < score["constant_row"]
    truth = pd.read_csv(clone.data / "truth" / "test_clips.csv").set_index("recording_id")
    submission = pd.read_csv(clone.exp / "submission.csv").set_index("recording_id")
    value = lwlrap(truth.to_numpy(), submission.loc[truth.index, truth.columns].to_numpy())
    handed_in = results["cycles"][results["submitted"]["cycle"]]["scores"]["test_truth"]
    assert handed_in["value"] == pytest.approx(value, abs=1e-12)


def test_the_run_is_in_the_ledger(clone):
    ledger = pd.read_csv(clone.exp.parent / "ledger.csv")
    assert ledger[["recipe", "tag"]].to_numpy().tolist() == [["demo", "tiny"]]
    results = json.loads((clone.exp / "results.json").read_text())
    scores = results["cycles"][results["submitted"]["cycle"]]["scores"]
    assert ledger["cv"][0] == pytest.approx(scores["oof_known"]["value"], abs=1e-6)
    assert ledger["test_truth"][0] == pytest.approx(scores["test_truth"]["value"], abs=1e-6)


class Page(html.parser.HTMLParser):
    """Tags and addresses of a page; void elements need no end."""

    VOID = frozenset(
        [
            "area",
            "base",
            "br",
            "col",
            "embed",
            "hr",
            "img",
            "input",
            "link",
            "meta",
            "source",
            "track",
            "wbr",
        ]
    )

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_opens_alone(clone):
    text = (clone.exp / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert {"html", "head", "body", "table"} <= page.tags
    assert [a for a in page.addresses if not a.startswith(("data:", "#"))] == []
    for words in ("LWLRAP", "Canopy: tiny", "test, truth, as submitted", "span AUC"):
        assert words in text


def test_a_lost_output_is_made_again_with_the_same_bytes(clone):
    fold = clone.exp / "cycle1" / "fold0"
    kept = [fold / "best.pt", fold / "scores.npz", fold.parent / "oof.npz"]
    kept += [fold.parent / "test.npz", clone.exp / "submission.csv"]
    before = {path: path.read_bytes() for path in kept}
    whole = (clone.exp / "cycle1" / "fold1" / "best.pt").stat().st_mtime_ns
    (fold / "best.pt").unlink()
    (clone.exp / "submission.csv").unlink()
    ran = clone.run("--stage", "relabel")
    assert ran.rc == 0, ran.err
    assert {path: path.read_bytes() for path in kept} == before
    assert (clone.exp / "cycle1" / "fold1" / "best.pt").stat().st_mtime_ns == whole
    assert "cycle1/relabel.done.json: done before" in ran.err
    assert "cycle1/fold1/train.done.json: done before" in ran.err
    assert "cycle1/fold0: trained" in ran.err
    assert "fold1: trained" not in ran.err


def test_a_lost_feature_file_is_made_again(clone):
    (manifest,) = clone.dump.glob("*/manifest.csv")
    names = pd.read_csv(manifest)["file"]
    one, other = manifest.parent / names.iloc[0], manifest.parent / names.iloc[1]
    before = one.read_bytes(), other.stat().st_mtime_ns
    one.write_bytes(before[0][:500])
    ran = clone.run("--stop-stage", "preprocess")
    assert ran.rc == 0, ran.err
    assert (one.read_bytes(), other.stat().st_mtime_ns) == before
    assert "1 of 48 recordings made" in ran.err


def test_an_unknown_key_is_one_sentence(clone):
    before = (clone.exp / "submission.csv").stat().st_mtime_ns
    ran = clone.run("--set", "train.n_epoch=3")
    assert ran.rc == 1
    (line,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert "unknown key train.n_epoch; the nearest known one is n_epochs" in line
    assert "Traceback" not in ran.err
    assert "stage 0" not in ran.err.split("error: ")[0]
    assert (clone.exp / "submission.csv").stat().st_mtime_ns == before
