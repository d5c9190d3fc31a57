"""Settings that tables suggest: where they lie, who has them, what follows when they change."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from local.config import Suggestion, load_config, make_config, read_values
from local.config.strict_yaml import parse_yaml
from local.config.suggestion import as_values, as_yaml
from local.io.errors import CanopyError
from local.stages import settings as settings_module
from local.stages.completion import Completion
from local.stages.dependencies import STAGES
from local.stages.experiment import Experiment
from local.stages.inputs import stage_settings
from local.stages.run_options import complete
from local.stages.settings import SUGGESTED, of_recipe, resolve, write_suggested
from local.stages.stage_options import stage_parser
from local.stages.starting import run_of, start
from recipes.mine.prepare import main
from tests.scripts import load_script
from tests.simulated_calls import HEADER

ROOT = Path(__file__).resolve().parents[3]
KEPT = ("config.yaml", SUGGESTED)
CONF = "prepare: {settings: auto}\ndata: {annotation: complete}\nsplit: {n_folds: 2}\n"


class Field:
    """Recordings of 4 s at 16 kHz with calls of one length, and a version of `mine`."""

    def __init__(self, path) -> None:
        self.path, self.data = path, path / "data"
        self.data.mkdir()
        self.conf = self.path / "own.yaml"
        self.conf.write_text(CONF)

    def annotate(self, duration: float, gap: float) -> None:
        for r in range(4):
            sound = np.random.default_rng(r).normal(0, 0.1, 4 * 16000)
            if not (self.data / f"r{r}.wav").exists():
                soundfile.write(self.data / f"r{r}.wav", sound, 16000)
            onsets = np.arange(0.2, 3.8 - duration, duration + gap)
            rows = [
                f"{n}\tSpectrogram 1\t1\t{at:.4f}\t{at + duration:.4f}\t1000\t3000\towl"
                for n, at in enumerate(onsets)
            ]
            path = self.data / f"r{r}.Table.1.selections.txt"
            path.write_text("\n".join([HEADER, *rows]) + "\n")

    def options(self, *more: str) -> list[str]:
        places = {"datadir": self.data, "dumpdir": self.path / "dump", "expdir": self.path / "exp"}
        named = [word for key, value in places.items() for word in (f"--{key}", str(value))]
        return ["--recipe", "mine", "--conf", str(self.conf), *named, *more]

    def prepare(self, *more: str) -> None:
        tables = self.path / "dump" / "tables"
        words = ["--datadir", str(self.data), "--out", str(tables), "--conf", str(self.conf)]
        assert main([*words, *more]) == 0

    def run(self, *more: str):
        return run_of(stage_parser(None).parse_args(self.options(*more)))

    def completion(self, **more) -> Completion:
        given = {"recipe": "mine", "conf": str(self.conf), "set": [], **more}
        for key in ("datadir", "dumpdir", "expdir"):
            given[key] = str({"datadir": self.data}.get(key, self.path / key.removesuffix("dir")))
        root = self.path.parent
        return Completion(complete(given, ROOT, root) | {"set": given["set"]})


@pytest.fixture
def field(tmp_path):
    made = Field(tmp_path)
    made.annotate(0.1, 0.06)
    return made


def hop_s(config) -> float:
    return config.features.hop_length / config.audio.sample_rate


def test_before_the_tables_nothing_is_suggested(field):
    assert field.run().suggestions is None
    assert field.run().config == load_config(field.conf)


def test_layers_are_defaults_suggestions_version_and_set(field):
    field.prepare()
    plain = field.run().config
    assert hop_s(plain) < 0.02
    assert plain.events.tune
    (field.path / "top.yaml").write_text("base: own.yaml\ntrain: {n_epochs: 7}\n")
    field.conf = field.path / "top.yaml"
    mine = field.run("--set", "window.length_s=0.9").config
    assert (mine.train.n_epochs, mine.window.length_s) == (7, 0.9)
    assert mine.inference.window_s == 1.8
    assert mine.train.windows_per_epoch is not None
    # Set in the base alone, and by --set over it.
    (field.path / "own.yaml").write_text(CONF + "features: {hop_length: 64}\n")
    assert field.run().config.features.hop_length == 64
    assert field.run("--set", "features.hop_length=32").config.features.hop_length == 32
    fixed = field.run("--set", "prepare.settings=fixed")
    assert fixed.suggestions is None
    assert fixed.config.features.hop_length == 64
    assert fixed.config.window.length_s == load_config(field.conf).window.length_s


def test_every_stage_has_the_same_and_keeps_it_with_the_run(field):
    field.prepare()
    run = start(stage_parser(None).parse_args(field.options()), "split")
    folder = field.path / "exp" / "own"
    assert load_config(folder / "config.yaml") == run.config
    text = (folder / SUGGESTED).read_text()
    given = read_values(field.conf)
    # The file is a fragment that, laid under the version, gives the run's configuration.
    assert make_config(given, field.conf, parse_yaml(text)) == run.config
    # As its head says: with the version as base it is one that goes by no tables any more.
    assert "base: (the version) and prepare: {settings: fixed}" in text
    frozen = field.path / "frozen.yaml"
    frozen.write_text(f"base: own.yaml\nprepare: {{settings: fixed}}\n{text}")
    field.conf, own = frozen, field.conf
    assert field.run().suggestions is None
    assert field.run().config.model_dump(exclude={"prepare"}) == run.config.model_dump(
        exclude={"prepare"}
    )
    field.conf = own
    values = [line for line in text.splitlines() if ": " in line and "#" not in line]
    reasons = [line for line in text.splitlines() if line.lstrip().startswith("# ")]
    assert len(reasons) == len(values) + 3  # the head of the file
    assert run.config == field.completion(stage="1")._run.config


def test_other_annotation_is_told_and_done_again(field, monkeypatch):
    field.prepare()
    before = field.run()
    write_suggested(field.path, before.config, before.suggestions)
    stamps = {name: stage_settings(STAGES[name], before.config) for name in ("train", "preprocess")}
    completion = field.completion()
    field.annotate(0.8, 0.5)
    # Tables that are to be made anew suggest nothing until they are.
    assert completion._run.suggestions is None
    field.prepare()
    assert completion.take_tables()
    after = field.run()
    assert after.config == completion._run.config
    assert hop_s(after.config) >= 2 * hop_s(before.config)
    assert after.features != before.features
    for name, settings in stamps.items():
        assert stage_settings(STAGES[name], after.config) != settings
    # A log that was started takes its handlers from pytest.
    told = []
    monkeypatch.setattr(
        settings_module.log, "warning", lambda text, *args: told.append(text % args)
    )
    write_suggested(field.path, after.config, after.suggestions)
    assert "features.hop_length" in told[0]
    assert "done again" in told[0]
    write_suggested(field.path, after.config, after.suggestions)
    assert len(told) == 1


def test_the_checks_of_a_run_tell_what_changed(field):
    """As in `./run.sh`: a check before the tables are prepared, and another one after."""
    check, folder = load_script("check_config").main, field.path / "exp" / "own"
    log = folder / "logs" / "check.log"

    def run(prepare=True):
        assert check(field.options("--stages", "0 1")) == 0
        kept = [(folder / name).read_bytes() for name in KEPT if (folder / name).exists()]
        if prepare:
            field.prepare()
            assert check(field.options("--stages", "0 1", "--prepared")) == 0
        return kept

    assert run() == []
    before = [(folder / name).read_bytes() for name in KEPT]
    assert "settings told from the annotation" in log.read_text()
    log.unlink()
    field.annotate(0.8, 0.5)
    assert run() == before
    assert "other settings than before (" in log.read_text()
    assert "features.hop_length" in log.read_text()
    assert [(folder / name).read_bytes() for name in KEPT] != before
    # The file goes only where nothing is to be suggested any more.
    field.conf.write_text(CONF.replace("auto", "fixed"))
    run(prepare=False)
    assert not (folder / SUGGESTED).exists()
    assert load_config(folder / "config.yaml") == load_config(field.conf)


def test_a_model_of_other_tables_is_refused(field):
    field.prepare()
    run = start(stage_parser(None).parse_args(field.options()), "infer")
    with pytest.raises(CanopyError, match=r"run stage 2 first|missing"):
        Experiment(run).require_trained(0, 0)


def test_suggestions_do_not_touch_what_tables_are_made_of(field):
    field.prepare()
    folder = field.path / "dump" / "tables"
    stamp = (folder / "prepare.done.json").read_bytes()
    field.prepare("--set", "prepare.settings=fixed")
    assert (folder / "prepare.done.json").read_bytes() == stamp
    assert "settings" not in of_recipe(field.run().config).prepare


def test_calls_beyond_the_band_are_refused_only_where_the_band_was_set(field):
    with pytest.raises(CanopyError, match=r"all boxes of 'owl' lie above 1000 Hz"):
        field.prepare("--set", "features.f_max_hz=900", "--set", "features.f_min_hz=100")
    field.prepare()


def test_wrong_values_are_one_sentence(field):
    with pytest.raises(CanopyError, match=r"prepare\.settings is 'maybe', expected auto"):
        field.run("--set", "prepare.settings=maybe")
    with pytest.raises(CanopyError, match=r"data\.short_calls"):
        field.run("--set", "data.short_calls=perhaps")


def test_yaml_of_suggestions_keeps_sections_together():
    suggestions = [
        Suggestion("a.b", 1, "one"),
        Suggestion("c.d.e", [[1, 2]], "two"),
        Suggestion("a.f", "x", "three"),
        Suggestion("c.g", True, "four"),
        Suggestion("c.d.h", 0.5, "five"),
        Suggestion("top", None, "six"),
    ]
    assert parse_yaml(as_yaml(suggestions)) == as_values(suggestions)


def test_tables_of_a_preparation_under_way_suggest_nothing(field):
    field.prepare()
    (field.path / "dump" / "tables" / "prepare.done.json").unlink()
    assert resolve(field.conf, [], field.path / "dump" / "tables").suggestions is None
