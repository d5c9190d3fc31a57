"""Configurations: strict, inherited, immutable; every shipped one builds and steps."""

import copy
import pickle
from pathlib import Path
from typing import Literal, get_args

import pytest
import torch
import yaml
from pydantic import Field, ValidationError

from local.config import Config, Section, dump_config, load_config, parse_section
from local.features.front_ends.front_end_registry import front_end_of
from local.io.errors import CanopyError
from local.labels.windows import window_frames
from local.models import create_model
from local.stages.checks import check_config
from local.training.augment.batch import Batch
from local.training.augment.chain import augment
from local.training.augment.input_kind import InputKind
from local.training.losses.objective import Objective
from local.training.optimisation import make_optimizer
from recipes.bats import settings as bats
from recipes.demo.settings import DemoSettings
from recipes.mine import settings as mine
from recipes.rfcx import prepare as rfcx
from recipes.usv import settings as usv

ROOT = Path(__file__).resolve().parents[3]
RECIPES = [bats.PrepareConfig, bats.SimulateConfig, mine.PrepareConfig, rfcx.PrepareConfig]
RECIPES += [usv.PrepareConfig, DemoSettings]
SHIPPED = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("conf/*/*.yaml"))


@pytest.fixture
def write(tmp_path):
    """Function: text -> path of a configuration."""

    def write(text, name="a.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def refused(path, *overrides):
    with pytest.raises(CanopyError) as caught:
        load_config(path, list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


# ----------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("window: {lenght_s: 4}", "window.lenght_s", "length_s"),
        ("trian: {n_epochs: 4}", "trian", "train"),
        ("inference: {tta: {shift_s: [0]}}", "inference.tta.shift_s", "shifts_s"),
        ("train: {epochs: 4}", "train.epochs", "n_epochs"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(write, text, key, near):
    message = refused(write(text))
    assert "a.yaml" in message
    assert f"unknown key {key}; the nearest known one is {near}" in message


def sections_of(section, at=()):
    """(path, section) of a section and of all within it, optional ones and those of lists too."""
    yield at, section
    for name, field in section.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Section):
                yield from sections_of(part, (*at, name))


class Depth(Section):
    metres: float = 0.0


class Trip(Section):
    """What no section of a version has: sections that may be null or stand in a list or a dict."""

    depth: Depth | None = None
    depths: tuple[Depth, ...] = ()
    named: dict[str, Depth] = Field(default_factory=dict)
    either: Literal["no"] | Depth = "no"


SECTIONS = [(Config, at, section) for at, section in sections_of(Config)]
SECTIONS += [(whole, at, section) for whole in RECIPES for at, section in sections_of(whole)]


@pytest.mark.parametrize(
    ("whole", "at", "section"),
    SECTIONS,
    ids=[".".join([whole.__module__.split(".")[1], *at]) for whole, at, _ in SECTIONS],
)
def test_every_section_names_the_nearest_key_and_the_wrong_value(whole, at, section):
    for name in section.model_fields:
        wrong = {name: object()}
        unknown = {f"{name}_": 1}
        for key in reversed(at):
            wrong, unknown = {key: wrong}, {key: unknown}
        place = ".".join([*at, name])
        with pytest.raises(CanopyError, match=rf"unknown key {place}_; .* known one is {name}\b"):
            parse_section(whole, unknown, "")
        with pytest.raises(CanopyError, match=rf"\b{place}: .*found <object"):
            parse_section(whole, wrong, "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": {"meters": 1}}, "unknown key a.depth.meters; the nearest known one is metres"),
        ({"depth": {"metres": "x"}}, "a.depth.metres: .*number.*found 'x'"),
        ({"depth": 3}, "a.depth: .*found 3"),
        ({"depths": [{}, {"meters": 1}]}, "unknown key a.depths.1.meters; .* is metres"),
        ({"named": {"b": {"meters": 1}}}, "unknown key a.named.b.meters; .* is metres"),
        ({"either": {"meters": 1}}, "unknown key a.either.meters; .* is metres"),
        ({"deph": None}, "unknown key a.deph; the nearest known one is depth"),
    ],
)
def test_optional_sections_are_as_strict(values, message):
    with pytest.raises(CanopyError, match=message):
        parse_section(Trip, values, "a")


def test_a_value_of_several_types_is_named_without_them(write):
    for value in ("x", "{s3: x}", "[1]"):
        message = refused(write(f"loss: {{positive_weight: {value}}}"))
        assert message.count("loss.positive_weight") >= 1
        assert "function" not in message
        assert "constrained" not in message


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.lr=0", "train.lr: Input should be greater than 0, found 0"),
        ("train.lr=fast", "train.lr: .*number.*found 'fast'"),
        ("train.lr=.inf", "train.lr: .*finite"),
        ("split.n_folds=1", "split.n_folds: .*greater than or equal to 2, found 1"),
        ("window.min_visible_share=1.5", "window.min_visible_share: .*less than or equal to 1"),
        ("window.length_s=-1", "window.length_s: .*greater than 0"),
        ("window.short=cut", "window.short: .*'refuse', 'repeat' or 'silence', found 'cut'"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
        ("train.ema_decay=1", "train.ema_decay: .*less than 1"),
        ("train=5", "train: .*found 5"),
        ("loss.clip_weight=0", "loss: clip_weight, frame_weight and lsep_weight are all 0"),
        ("inference.window_s=4", "inference: window_s and window_frames are both given; keep one"),
        ("relabel.low_threshold=0.9", r"relabel: low_threshold 0\.9 is above threshold 0\.5"),
        (
            "relabel={n_cycles: 3, power: [1.5, 1.2]}",
            "relabel: power lists 2 numbers, but n_cycles is 3; give one number, or one a cycle",
        ),
        ("relabel.power=0", "relabel.power.*greater than 0, found 0"),
        ("relabel.power=[-1]", "relabel.power.*greater than 0"),
        ("relabel.weight=1.5", "relabel.weight: .*less than or equal to 1"),
        ("relabel.kind=hard", "relabel.kind: .*'soft' or 'events', found 'hard'"),
        ("relabel.pseudo_mixup=1.2", "relabel.pseudo_mixup: .*less than or equal to 1"),
        ("relabel.drop_path=1", "relabel.drop_path: .*less than 1"),
        ("relabel.max_fall=-0.1", "relabel.max_fall: .*greater than or equal to 0"),
        ("relabel.max_per_confirmed=0", "relabel.max_per_confirmed: .*greater than 0"),
        ("prior.method=given", "prior: method: given goes with the path of a csv"),
        ("events.tune=true", "events.tune counts .* needs data.annotation: complete"),
        ("events.thresholds=[0.5, 0.4]", "events: thresholds are .* give them in rising order"),
        ("events.thresholds=[0.5, 1]", "events: thresholds must be probabilities"),
        ("events.gaps_s=[]", "events: .* no list empty"),
        ("events.drops=[-1]", "events: drops, durations_s and gaps_s must be 0 or more"),
        ("events.ious=[1]", "events.ious.*less than 1"),
        ("inference.tta.speeds=[]", r"inference.tta: speeds is empty; the plain view is \[0\.0\]"),
    ],
)
def test_values_have_bounds_and_errors_name_key_and_value(write, override, part):
    path = write(
        "audio: {sample_rate: 16000}\nloss: {frame_weight: 0}\ninference: {window_frames: 100}\n"
    )
    with pytest.raises(CanopyError, match=part):
        load_config(path, [override])


def test_soft_labels_go_with_masks(write):
    path = write("relabel: {kind: soft}\nloss: {masked: false}\n")
    with pytest.raises(CanopyError, match=r"kind is soft, but with loss\.masked: false"):
        load_config(path)
    assert load_config(path, ["relabel.n_cycles=0"]).relabel.kind == "soft"
    assert load_config(path, ["loss.masked=true", "relabel.power=[2]"]).relabel.power_of(1) == 2


def test_all_faults_are_told_at_once(write):
    message = refused(write("train: {lr: 0, epochs: 3}\nwindow: {length_s: 0}"))
    for part in ("train.lr", "unknown key train.epochs", "window.length_s"):
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1", "not readable as YAML"),
        ("- 1\n- 2", "expected sections with keys, found list"),
        ("train: {lr: 1}\ntrain: {lr: 2}", r"key 'train' stands twice \(line 2\); keep one"),
        ("train:\n  lr: 1\n  lr: 2", r"key 'lr' stands twice \(line 3\)"),
        ("base: [1]", r"`base:` must be the path of another file, found \[1\]"),
        ("seed: !!python/object/apply:os.getpid []", "line 1 has the tag"),
    ],
)
def test_files_that_are_no_configuration(write, text, part):
    with pytest.raises(CanopyError, match=rf"a\.yaml: {part}"):
        load_config(write(text))


def test_missing_files_are_named(write, tmp_path):
    assert "none.yaml: no such configuration file" in refused(tmp_path / "none.yaml")
    assert "none.yaml: no such configuration file" in refused(write("base: none.yaml"))


def test_an_empty_file_is_all_defaults(write):
    assert load_config(write("")) == Config()


# ------------------------------------------------------------------------------------------- base


def test_a_chain_of_bases(write):
    write("train: {lr: 0.1, n_epochs: 7}\nseed: 3", "one.yaml")
    write("base: ../one.yaml\ntrain: {n_epochs: 8, batch_size: 4}", "deep/two.yaml")
    config = load_config(write("base: two.yaml\ntrain: {batch_size: 5}", "deep/three.yaml"))
    assert config.seed == 3
    assert (config.train.lr, config.train.n_epochs, config.train.batch_size) == (0.1, 8, 5)


def test_a_circle_of_bases_is_refused(write):
    write("base: b.yaml", "a.yaml")
    path = write("base: a.yaml", "b.yaml")
    assert "leads back to itself; break the circle" in refused(path)
    assert "leads back to itself" in refused(write("base: a.yaml", "a.yaml"))


TIMM = "model: {name: timm, params: {level: -1, hidden: 8}}"
OWN = "model: {params: {gru: 0, dropout: 0.1}}"  # of crnn, the default


@pytest.mark.parametrize(
    ("base", "child", "overrides", "name", "params"),
    [
        # The same model, named or not: key by key.
        (OWN, "model: {params: {gru: 8}}", [], "crnn", {"gru": 8, "dropout": 0.1}),
        (OWN, "model: {name: crnn}", [], "crnn", {"gru": 0, "dropout": 0.1}),
        (OWN, "model: {name: crnn, params: {gru: 8}}", [], "crnn", {"gru": 8, "dropout": 0.1}),
        (TIMM, "model: {params: {level: -2}}", [], "timm", {"level": -2, "hidden": 8}),
        (TIMM, "", ["model.name=timm"], "timm", {"level": -1, "hidden": 8}),
        # Another model: the parameters of the first are not its own.
        (OWN, "model: {name: timm, params: {level: -2}}", [], "timm", {"level": -2}),
        (TIMM, "model: {name: crnn}", [], "crnn", {}),
        (TIMM, OWN, ["model.name=crnn"], "crnn", {}),
        (TIMM, "", ["model.params.gru=8", "model.name=crnn"], "crnn", {"gru": 8}),
        (TIMM, "", ["model={name: crnn, params: {gru: 8}}"], "crnn", {"gru": 8}),
    ],
)
def test_parameters_follow_the_model_they_belong_to(
    write, caplog, base, child, overrides, name, params
):
    write(base, "base.yaml")
    with caplog.at_level("INFO", logger="canopy"):
        model = load_config(write(f"base: base.yaml\n{child}"), overrides).model
    assert (model.name, model.params) == (name, params)
    before = "timm" if base == TIMM else "crnn"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (name != before)
    assert all(f"model.name is {name} in place of {before}" in line for line in told)


def test_only_a_model_has_parameters_that_follow_its_name(write):
    write("prepare: {name: a, params: {x: 1}}", "base.yaml")
    config = load_config(write("base: base.yaml\nprepare: {name: b}"))
    assert config.prepare == {"name": "b", "params": {"x": 1}}


# ------------------------------------------------------------------------------------------ --set


def test_overrides_come_last_and_are_typed(write):
    path = write("train: {lr: 0.1, n_epochs: 7}")
    overrides = ["train.lr=1e-3", "window.balance_classes=false", "inference.tta.shifts_s=[0, 0.5]"]
    overrides += ["model.params.gru=0", "features.f_max_hz=null", "train.lr=2e-3"]
    config = load_config(path, overrides)
    assert config.train.lr == 0.002
    assert config.train.n_epochs == 7
    assert config.window.balance_classes is False
    assert config.inference.tta.shifts_s == (0.0, 0.5)
    assert config.model.params == {"gru": 0}
    assert config.features.f_max_hz is None


@pytest.mark.parametrize("override", ["train.lr", "=3", "train..lr=1", ".lr=1", "train.lr=[1"])
def test_overrides_that_cannot_be_read(write, override):
    assert f"--set {override!r}" in refused(write(""), override)


def test_overrides_have_the_same_strictness(write):
    message = refused(write(""), "window.lenght_s=3")
    assert "unknown key window.lenght_s; the nearest known one is length_s" in message


# -------------------------------------------------------------------------------------- immutable


def test_a_configuration_cannot_be_changed():
    """No fold can change what the next one gets.

    Pins defect 1 of earlier systems: one fold changed the settings of those after it.
    """
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.train.batch_size = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.inference.tta.flip = True


def nested():
    return Config(
        prepare={"species": [1, 2]},
        model={"params": {"pool": [[2, 2]], "more": {"a": [1]}}},
        loss={"positive_weight": {"a": 2.0}},
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.prepare.update(species=[3]),
        lambda c: c.prepare["species"].append(3),
        lambda c: c.model.params.pop("pool"),
        lambda c: c.model.params["pool"][0].append(1),
        lambda c: c.model.params["more"].__setitem__("a", 2),
        lambda c: c.model.params.setdefault("b", 2),
        lambda c: c.model.params.__ior__({"b": 2}),
        lambda c: c.loss.positive_weight.clear(),
        lambda c: c.inference.tta.shifts_s.append(1.0),
        lambda c: c.relabel.subsets.append("test"),
        lambda c: Config().model.params.update(gru=1),
        lambda c: Config().prepare.__delitem__("size"),
    ],
)
def test_nothing_inside_a_configuration_can_be_changed(change):
    """What a section holds cannot be changed either (defect 1 of earlier systems)."""
    config = nested()
    with pytest.raises((TypeError, AttributeError)):
        change(config)
    assert config == nested()


def test_a_frozen_configuration_is_copied_sent_and_written_like_any():
    config = nested()
    for other in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert other == config
        with pytest.raises(TypeError, match="frozen"):
            other.model.params["pool"] = []
    changed = {**config.model.params, "pool": []}
    changed["pool"].append(1)
    assert yaml.safe_load(dump_config(config))["model"]["params"]["more"] == {"a": [1]}
    assert type(config.model_dump(mode="json")["model"]["params"]) is dict


def test_the_resolved_configuration_reads_back_as_itself(write):
    config = load_config(ROOT / "conf/demo/tiny.yaml", ["train.lr=0.00012", "inference.window_s=3"])
    again = load_config(write(dump_config(config)))
    assert again == config
    assert dump_config(again) == dump_config(config)


def test_sections_of_others_are_as_strict():
    class Params(Section):
        depth: int = 2

    assert parse_section(Params, {"depth": 3}, "prepare").depth == 3
    with pytest.raises(CanopyError, match=r"b\.yaml: unknown key prepare\.dept; .* depth"):
        parse_section(Params, {"dept": 3}, "prepare", "b.yaml")
    with pytest.raises(CanopyError, match=r"prepare\.depth: .*found 'x'"):
        parse_section(Params, {"depth": "x"}, "prepare")


# ---------------------------------------------------------------------------------------- shipped


def random_batch(front_end, step, window):
    g = torch.Generator().manual_seed(0)
    cells = window // step
    frame = torch.randint(2, (2, 2, cells), generator=g).float()
    clip = frame.amax(dim=2)
    x = torch.randn(2, *front_end.axes, window, generator=g)
    x = front_end.as_input(x - 8 if front_end.axes else 0.1 * x)
    return Batch(x, clip, torch.ones(2, 2), frame, torch.ones_like(frame))


def test_configurations_are_shipped():
    assert {"conf/demo/default.yaml", "conf/demo/tiny.yaml", "conf/rfcx/laptop.yaml"} <= set(
        SHIPPED
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_configuration_loads_builds_and_steps(name):
    """One training step with its own model, windows, augmentation and loss.

    Pins defect 22 of earlier systems: shipped versions crashed when they were run.
    """
    config = load_config(ROOT / name)
    check_config(config)
    params = {**config.model.params}
    if params.get("pretrained"):
        params["pretrained"] = False
    front_end = front_end_of(config)
    torch.manual_seed(0)
    model = create_model(config.model.name, params, 2, front_end.n_bands).train()
    window = window_frames(config.window.length_s, front_end.hop_s, model.step)
    batch = random_batch(front_end, model.step, window)
    kind = InputKind.of(config, "cpu")
    batch = augment(batch, config.augment, torch.Generator().manual_seed(0), kind)
    loss = config.loss
    if isinstance(loss.positive_weight, dict):  # by labels that these two classes do not have
        loss = loss.model_copy(update={"positive_weight": 2.0})
    objective = Objective(loss, ["a", "b"], lambda: model(batch.x))
    optimizer = make_optimizer(model, objective, config.train)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    loss = objective(model(batch.x), batch)["total"]
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert any(moved)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
