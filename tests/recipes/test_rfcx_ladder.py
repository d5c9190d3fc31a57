"""The ladder: its table of runs, resuming, scores and their comparison, the page; once for real."""

import json
import os
import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import label_ranking_average_precision_score

from local.config import load_config
from local.data.tables import read_tables
from local.io.errors import CanopyError
from local.io.files import write_csv, write_json, write_npz
from recipes.demo.competition import simulate
from recipes.demo.prepare import PrepareConfig
from recipes.demo.prepare import main as prepare
from recipes.demo.settings import settings_from
from recipes.rfcx.ladder import __main__ as ladder
from recipes.rfcx.ladder import climb as climbing
from recipes.rfcx.ladder.climb import full_truth_folder, inference_folder
from recipes.rfcx.ladder.page import BEGIN, END, put_section
from recipes.rfcx.ladder.rungs import COMMON, RUNS, list_rungs
from recipes.rfcx.ladder.scores import Estimate, difference, estimate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "conf/demo/tiny.yaml"
LABELS = ["s0", "s1", "s2", "s3"]
N_TEST = 40
SOURCE = [0.25, 0.25, 0.25, 0.25]
# How well the invented runs hear: the higher, the less noise on the truth.
HEARING = {"positives": 0.3, "masked": 2.0, "frames": 2.0, "pull": 2.0, "truth": 6.0}
HEARING |= {"default": 3.0, "soft": 3.0, "tta": 3.0, "blend": 3.0, "fitted": 3.0}


def value_of(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def settings_of(command: list[str]) -> dict[str, str]:
    pairs = pairwise(command)
    return dict(value.split("=", 1) for option, value in pairs if option == "--set")


def truth_of(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = (rng.random((N_TEST, 4)) < [0.8, 0.4, 0.2, 0.1]).astype(int)
    truth[~truth.any(axis=1), 0] = 1
    return truth


def plain_match(clip: np.ndarray, prevalence: np.ndarray) -> np.ndarray:
    """By halving: what makes the mean probability of each class its prevalence."""
    low, high = np.full(len(prevalence), -50.0), np.full(len(prevalence), 50.0)
    for _ in range(100):
        middle = (low + high) / 2
        above = expit(clip + middle).mean(axis=0) > prevalence
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return low


class Invented:
    """Stands in for all commands: writes what the runs would leave, and notes what was called."""

    def __init__(self, fail_at: str | None = None) -> None:
        self.calls: list[list[str]] = []
        self.fail_at = fail_at

    def __call__(self, command: list[str], log: Path) -> None:
        self.calls.append(command)
        if "blend.py" in command[1]:
            folder = Path(value_of(command, "--out"))
            seed = int(folder.parent.name.removeprefix("seed"))
            self.scores(folder, folder.name, 0, seed)
            write_json(folder / "blend.json", {"prior": {"source": SOURCE, "shift": [0.0] * 4}})
            return
        tag, seed = value_of(command, "--tag"), int(settings_of(command)["seed"])
        if self.fail_at == f"{tag}/{seed}":
            raise CanopyError("the disk is full")
        if tag == "data":
            self.data(Path(value_of(command, "--datadir")), Path(value_of(command, "--dumpdir")))
        if tag == "data" or "--stop-stage" in command:
            return
        self.run(command, tag, seed)

    def data(self, data: Path, dump: Path) -> None:
        truth = truth_of(int(data.name.removeprefix("seed")))
        ids = [f"r{row}" for row in range(N_TEST)]
        frame = pd.DataFrame({"recording_id": ids, **dict(zip(LABELS, truth.T, strict=True))})
        write_csv(data / "truth" / "test_clips.csv", frame)
        columns = pd.DataFrame({"label": LABELS, "column": LABELS})
        write_csv(dump / "tables" / "submission_columns.csv", columns)

    def run(self, command: list[str], tag: str, seed: int) -> None:
        folder = Path(value_of(command, "--expdir")) / tag
        last = int(settings_of(command)["relabel.n_cycles"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "folds.csv").touch()
        cycles = []
        for cycle in range(last + 1):
            if not (folder / f"cycle{cycle}").is_symlink():
                self.scores(folder / f"cycle{cycle}", tag, cycle, seed)
            prior = {"source": SOURCE, "shift": [0.3, 0.1, -0.1, -0.3]}
            cycles.append({"cycle": cycle, "prior": prior})
        write_json(folder / "results.json", {"cycles": cycles})
        record = {"device": "cpu", "cpu_count": 2, "torch": "9.9"}
        write_json(folder / "run.json", {"train": record})

    def scores(self, folder: Path, tag: str, cycle: int, seed: int) -> None:
        rng = np.random.default_rng([seed, cycle, *map(ord, tag)])
        clip = HEARING[tag] * (truth_of(seed) - 0.5) + rng.normal(size=(N_TEST, 4))
        write_npz(
            folder / "test.npz",
            recording_id=np.array([f"r{row}" for row in range(N_TEST)]),
            label=np.array(LABELS),
            clip_logit=clip.astype(np.float32),
            window_logit=clip.astype(np.float32),
        )


@pytest.fixture
def climb(tmp_path, monkeypatch):
    """Runs the ladder in `tmp_path` with invented runs."""
    monkeypatch.chdir(tmp_path)  # and back at the end: the ladder works in the project's folder

    def run(*options: str, runner=None, seeds=("0", "1", "2")) -> Invented:
        runner = runner or Invented()
        argv = ["--expdir", tmp_path / "exp", "--results", tmp_path / "R.md", "--seeds", *seeds]
        ladder.main([str(word) for word in [*argv, *options]], runner)
        return runner

    return run


# ----------------------------------------------------------------------------- the table of runs


@pytest.mark.parametrize("run", [run for run in RUNS if run.kind != "blend"], ids=lambda r: r.name)
def test_every_run_is_a_valid_configuration(run):
    load_config(ROOT / "conf/demo/default.yaml", [*COMMON, *run.settings])


def test_a_rung_takes_one_thing_away_from_the_one_below():
    below = [set(run.settings) for run in RUNS[:5]]
    assert [run.name for run in RUNS[:5]] == ["positives", "masked", "frames", "pull", "default"]
    for lower, upper in pairwise(below):
        assert upper < lower
        assert len(lower - upper) <= 2
    assert below[-1] == set()


@pytest.mark.parametrize(("default", "last"), [(1, 2), (0, 2), (2, 2)])
def test_the_default_stands_on_the_cycle_it_ends_with(default, last):
    rungs = {rung.key: rung for rung in list_rungs(default, last)}
    assert rungs["default"].cycle == rungs["tta"].cycle == default
    assert rungs["default"].below == (f"cycle{default}" if default else "mixup")
    assert all(rung.below in rungs for rung in rungs.values() if rung.below)
    titles = [rung.title for rung in rungs.values() if "beyond" in rung.title]
    assert len(titles) == last - default


# --------------------------------------------------------------------------- scores and intervals


def lwlrap(truth, score):
    weight = truth.sum(axis=1)
    return label_ranking_average_precision_score(truth, score, sample_weight=weight)


def test_scores_are_those_of_another_implementation(climb, tmp_path):
    climb(seeds=("0", "1"))
    rows = json.loads((tmp_path / "exp/ladder.json").read_text())["rungs"]
    (row,) = [row for row in rows if row["key"] == "default"]
    cycle = load_config(ROOT / "conf/demo/ladder.yaml").relabel.n_cycles
    for seed in (0, 1):
        truth = truth_of(seed)
        with np.load(tmp_path / f"exp/seed{seed}/default/cycle{cycle}/test.npz") as stored:
            clip = stored["clip_logit"].astype(np.float64)
        oracle = plain_match(clip, truth.mean(axis=0))
        expected = {"raw": 0.0, "prior": [0.3, 0.1, -0.1, -0.3], "oracle": oracle}
        for kind, shift in expected.items():
            assert row["scores"][kind]["seeds"][seed] == pytest.approx(lwlrap(truth, clip + shift))
        prevalence = np.broadcast_to(truth.mean(axis=0), truth.shape)
        assert row["constant_row"][seed] == pytest.approx(lwlrap(truth, prevalence))
    assert row["scores"]["raw"]["mean"] == pytest.approx(np.mean(row["scores"]["raw"]["seeds"]))


def test_an_interval_over_recordings_has_the_width_of_the_standard_error():
    rng = np.random.default_rng(0)
    parts = [(rng.random(400), np.ones(400)) for _ in range(3)]
    found = estimate(parts)
    means = [total.mean() for total, _ in parts]
    error = np.sqrt(sum(total.var() / 400 for total, _ in parts)) / 3
    assert found.seeds == pytest.approx(means)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found.low < found.mean < found.high


def test_a_difference_counts_that_seeds_differ():
    rng = np.random.default_rng(1)
    base = [(rng.random(200), np.ones(200)) for _ in range(3)]
    same = [(total + 0.02, count) for total, count in base]
    assert difference(same, base).verdict == "helps"
    assert difference(base, same).verdict == "hurts"
    assert difference(base, base).verdict == "no difference"
    # As much on average, from one seed alone: what another seed would say is open.
    gains = zip(base, (0.10, -0.02, -0.02), strict=True)
    one = [(total + gain, count) for (total, count), gain in gains]
    assert difference(one, base).mean == pytest.approx(0.02)
    assert difference(one, base).verdict == "no difference"


def test_verdicts():
    assert Estimate(0.1, 0.01, 0.2, ()).verdict == "helps"
    assert Estimate(-0.1, -0.2, -0.01, ()).verdict == "hurts"
    assert Estimate(0.1, -0.01, 0.2, ()).verdict == "no difference"


# ------------------------------------------------------------------------------------- the climb


def test_the_whole_ladder_is_written_to_the_page(climb, tmp_path):
    runner = climb()
    text = (tmp_path / "R.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    (masked,) = [line for line in rows if line.startswith("| 2 |")]
    assert "helps" in masked
    for words in ("chance", "best constant row", "full truth", "oracle prior", "16 epochs"):
        assert words in text
    assert re.search(r"beats positives only by at least 0\.10: \+0\.\d+ .*, reached", text)
    assert len(re.findall("reached", text)) == 4
    assert "make ladder" in text
    for command in runner.calls:
        if "/seed0" in " ".join(command):
            assert climbing.shown(command) in text


def test_the_table_is_for_people_only_when_it_is_whole(climb, tmp_path):
    climb("--rungs", "positives", "masked")
    climb(seeds=("0", "1"))
    assert not (tmp_path / "R.md").exists()
    assert "positives only" in (tmp_path / "exp/ladder.md").read_text()


def test_seeds_are_other_competitions_and_other_trainings(climb):
    settings = [settings_of(call) for call in climb().calls if call[0] == "./run.sh"]
    assert {one["seed"] for one in settings} == {"0", "1", "2"}
    assert all(one["seed"] == one["prepare.seed"] for one in settings)


def test_a_failure_stops_and_the_same_command_goes_on(climb, tmp_path, capsys):
    with pytest.raises(CanopyError, match="disk is full"):
        climb(runner=Invented(fail_at="pull/1"))
    clock = json.loads((tmp_path / "exp/seconds.json").read_text())
    assert clock["frames/1"]["done"]
    assert not clock["pull/1"]["done"]
    before = clock["frames/0"]
    capsys.readouterr()
    climb()
    # The stamps of the stages decide what is done; the time of what was done is kept.
    assert json.loads((tmp_path / "exp/seconds.json").read_text())["frames/0"] == before
    assert "30 of 30 done" in capsys.readouterr().err


def test_the_time_left_is_told_by_the_trainings_that_are_left(tmp_path):
    plan = ladder.make_plan(ladder.parse_args(["--expdir", str(tmp_path), "--seeds", "0", "1"]))
    clock = climbing.Clock.open(tmp_path / "seconds.json")
    progress = climbing._Progress(plan, clock)
    assert progress.left() is None
    first = RUNS[0]
    clock.add("positives/0", progress.mark(first, 0), 60.0, False)
    clock.add("positives/0", progress.mark(first, 0), 40.0, True)
    clock.add("positives/0", progress.mark(first, 0), 5.0, True)
    # Each seed: four runs of one training, two of three, the truth, inference and two blends.
    assert progress.left() == pytest.approx(100 * (2 * (4 + 3 + 3 + 1 + 0.3 + 0.1) - 1))
    # Other settings are other work.
    other = ladder.make_plan(
        ladder.parse_args(["--expdir", str(tmp_path), "--seeds", "0", "1", "--epochs", "3"])
    )
    assert climbing._Progress(other, clock).left() is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rungs", "tta"], "add default"),
        (["--rungs", "blend", "default"], "needs two"),
        (["--seeds", "1", "1"], "different"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--conf", "nowhere.yaml"], "no such configuration"),
    ],
)
def test_what_cannot_be_done_is_refused(climb, tmp_path, options, words):
    runner = Invented()
    with pytest.raises(CanopyError, match=words):
        climb(*options, runner=runner)
    assert not runner.calls
    assert not (tmp_path / "exp").exists()


def test_a_command_that_fails_is_quoted(tmp_path):
    log = tmp_path / "seed0-masked.log"
    script = "import sys; print('error: no room left', file=sys.stderr); print('x'); sys.exit(3)"
    with pytest.raises(CanopyError, match=r"seed0-masked ended with code 3 \(no room left\)"):
        climbing.run_command([sys.executable, "-c", script], log)


# --------------------------------------------------------------------------------------- folders


def test_models_are_copied_once_and_nothing_that_inference_writes(tmp_path):
    source, target = tmp_path / "default", tmp_path / "tta"
    names = ("folds.csv", "cycle0/test.npz", "cycle1/oof.npz", "cycle1/relabel.done.json")
    names += ("cycle1/fold0/best.pt", "cycle1/fold0/last.pt", "cycle1/fold0/infer.done.json")
    names += ("cycle1/fold0.old-1/best.pt",)
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    inference_folder(source, target, 1)
    found = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    wanted = {"folds.csv", "cycle1/relabel.done.json", "cycle1/fold0/best.pt"}
    assert found - {"cycle0/test.npz"} == wanted
    assert (target / "cycle0/test.npz").read_text() == "cycle0/test.npz"
    before = os.stat(target / "cycle1/fold0/best.pt").st_ino
    inference_folder(source, target, 1)
    assert os.stat(target / "cycle1/fold0/best.pt").st_ino == before
    (source / "cycle1/fold0/best.pt").write_text("trained again")
    inference_folder(source, target, 1)
    assert (target / "cycle1/fold0/best.pt").read_text() == "trained again"


def test_the_folder_with_the_full_truth_is_prepared_like_any_other(tmp_path):
    data, full = tmp_path / "seed0", tmp_path / "truth0"
    simulate(settings_from(load_config(TINY).prepare, PrepareConfig), data, 1)
    full_truth_folder(data, full)
    full_truth_folder(data, full)
    options = ["--conf", str(TINY), "--nj", "1", "--set", "data.annotation=complete"]
    prepare(["--datadir", str(full), "--out", str(tmp_path / "tables"), *options])
    tables = read_tables(tmp_path / "tables")
    truth = pd.read_csv(data / "truth/train_events.csv")
    positive = tables.events[tables.events["polarity"] > 0]
    assert len(positive) == len(truth) > len(pd.read_csv(data / "train_tp.csv"))
    assert set(positive["recording_id"]) == set(truth["recording_id"])


# ---------------------------------------------------------------------------------------- the page


def test_the_section_goes_between_its_markers_and_leaves_the_rest(tmp_path):
    page = tmp_path / "RESULTS.md"
    page.write_text("# Results\n\nBy hand.\n")
    put_section(page, "## Ladder\n\nfirst\n")
    page.write_text(page.read_text() + "\nBelow, by hand.\n")
    put_section(page, "## Ladder\n\nsecond\n")
    assert page.read_text() == (
        f"# Results\n\nBy hand.\n\n{BEGIN}\n## Ladder\n\nsecond\n{END}\n\nBelow, by hand.\n"
    )


@pytest.mark.parametrize("text", [f"{BEGIN}\n", f"{END}\n{BEGIN}\n"])
def test_a_page_with_broken_markers_is_left_alone(tmp_path, text):
    page = tmp_path / "RESULTS.md"
    page.write_text(text)
    with pytest.raises(CanopyError, match=r"markers|stands before"):
        put_section(page, "## Ladder\n")
    assert page.read_text() == text


# ------------------------------------------------------------------------------------- for real


def test_a_tiny_ladder_for_real(tmp_path, monkeypatch, capsys, ready_environment):
    monkeypatch.setenv("VENV", str(ready_environment(tmp_path / "venv")))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_SUBMIT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    conf = tmp_path / "least.yaml"
    conf.write_text(
        f"base: {TINY}\nrelabel: {{n_cycles: 0}}\nscore: {{n_bootstrap: 20}}\n"
        "train: {n_epochs: 1, windows_per_epoch: 32, validate_every: 1}\n"
    )
    argv = ["--conf", str(conf), "--expdir", str(tmp_path / "exp"), "--cycles", "0", "--seeds", "0"]
    argv += ["--device", "cpu", "--rungs", "default", "tta", "blend"]
    ladder.main(argv)
    err = capsys.readouterr().err
    assert "3 of 3 done" in err
    rows = {
        row["key"]: row for row in json.loads((tmp_path / "exp/ladder.json").read_text())["rungs"]
    }
    assert set(rows) == {"mixup", "default", "tta", "blend"}
    # What the ladder scores is what stage 5 scores.
    for run, key in (("default", "default"), ("tta", "tta")):
        results = json.loads((tmp_path / "exp/seed0" / run / "results.json").read_text())
        scores = results["cycles"][0]["scores"]
        assert rows[key]["scores"]["prior"]["seeds"][0] == scores["test_truth"]["value"]
        assert rows[key]["scores"]["raw"]["seeds"][0] == scores["test_truth_raw"]["value"]
    logits = [
        np.load(tmp_path / "exp/seed0" / run / "cycle0/test.npz")["clip_logit"]
        for run in ("default", "tta")
    ]
    assert not np.allclose(*logits)
    # Inference of its own did not train anew.
    trained = tmp_path / "exp/seed0/tta/cycle0/fold0/best.pt"
    assert (
        trained.read_bytes() == (tmp_path / "exp/seed0/default/cycle0/fold0/best.pt").read_bytes()
    )
    assert "trained" not in (tmp_path / "exp/logs/seed0-tta.log").read_text()
