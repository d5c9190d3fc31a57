"""A folder of recordings and annotations becomes the three tables, or says what is amiss."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from local.config import load_config, parse_section
from local.data.annotations.formats import write_annotations
from local.data.annotations.raven import write_raven
from local.data.tables import read_tables
from local.io.errors import CanopyError
from local.stages.checks import check_config
from local.stages.settings import of_recipe
from recipes.mine.folder import make_ids
from recipes.mine.prepare import VERSION, main
from recipes.mine.settings import PrepareConfig
from tests import golden

ROOT = Path(__file__).resolve().parents[2]

CONF = "audio: {sample_rate: 8000}\nfeatures: {n_fft: 256, n_mels: 16, f_max_hz: 4000}\n"


class Folder:
    """Four sites' recordings, and the preparation of them."""

    def __init__(self, path) -> None:
        self.path, self.data, self.out = path, path / "data", path / "dump" / "tables"

    def sound(self, name: str, seconds: float = 4.0, rate: int = 8000) -> None:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(round(seconds * rate)), rate, format="WAV")

    def table(self, name: str, *rows, **options) -> None:
        """A Raven table of (label, onset, offset) rows."""
        frame = pd.DataFrame(rows, columns=["label", "onset", "offset"])
        frame = frame.assign(recording_id="x", low_freq=500.0, high_freq=1500.0)
        write_raven(
            self.data / name,
            frame.assign(recording_id=name.split("/")[-1].split(".")[0]),
            **options,
        )

    def prepare(self, n_folds: int = 2, annotation: str = "complete", **settings):
        conf = self.path / "conf.yaml"
        sections = {"split": {"n_folds": n_folds}, "data": {"annotation": annotation}}
        conf.write_text(CONF + yaml.safe_dump(sections | {"prepare": settings}))
        options = ["--datadir", str(self.data), "--out", str(self.out), "--conf", str(conf)]
        assert main([*options, "--nj", "1"]) == 0
        return read_tables(self.out)


@pytest.fixture
def folder(tmp_path):
    """Recordings in folders of sites, with tables of two labels beside all but one of them."""
    made = Folder(tmp_path)
    for i in range(4):
        made.sound(f"site{i // 2}/rec{i}.WAV")
        made.table(
            f"site{i // 2}/rec{i}.Table.1.selections.txt", ("frog", 0.5, 1.0), ("bird", 2.0, 3.0)
        )
    made.sound("site9/rec9.WAV")
    return made


def by_id(tables, column):
    return dict(zip(tables.recordings["recording_id"], tables.recordings[column], strict=True))


def test_tables_beside_recordings(folder):
    tables = folder.prepare()
    assert by_id(tables, "subset") == {
        **dict.fromkeys(("rec0", "rec1", "rec2", "rec3"), "train"),
        "rec9": "test",
    }
    assert by_id(tables, "path")["rec0"] == "site0/rec0.WAV"
    assert tables.labels == ["bird", "frog"]
    assert tables.classes["low_freq"].tolist() == [500.0, 500.0]
    assert len(tables.events) == 8
    row = tables.events.iloc[0]
    assert (row["recording_id"], row["label"], row["onset"], row["offset"]) == (
        "rec0",
        "frog",
        0.5,
        1,
    )
    assert set(tables.events["source"]) == {"raven"}


def test_other_tables_are_another_version(folder):
    folder.prepare()
    golden.check("prepare mine", VERSION, golden.tables(folder.out))


def test_it_is_skipped_when_nothing_changed_and_made_anew_when_something_did(folder):
    folder.prepare()
    stamp = folder.out / "prepare.done.json"
    before = stamp.stat().st_mtime_ns
    folder.prepare()
    assert stamp.stat().st_mtime_ns == before
    folder.table("site0/rec0.Table.1.selections.txt", ("frog", 0.1, 1.0), ("bird", 2.0, 3.0))
    assert folder.prepare().events["onset"].iloc[0] == 0.1
    folder.sound("site9/rec8.WAV")
    assert "rec8" in by_id(folder.prepare(), "subset")


@pytest.mark.parametrize("name", ["audacity", "plain"])
def test_other_formats_in_a_folder_of_their_own(folder, name):
    expected = folder.prepare().events.drop(columns="source")
    out = folder.path / "labels"
    if name == "plain":
        expected = expected.assign(path=expected["recording_id"].map(lambda text: f"{text}.wav"))
    write_annotations(out, expected, name)
    for path in folder.data.rglob("*.txt"):
        path.unlink()
    events = folder.prepare(annotation_dir=str(out)).events.drop(columns="source")
    columns = list(events.columns)
    pd.testing.assert_frame_equal(events, expected[columns], check_dtype=False)


def test_a_multi_file_table_with_a_selection_over_the_end_of_a_file(folder):
    for path in folder.data.rglob("*.txt"):
        path.unlink()
    columns = [
        "Begin Time (s)",
        "End Time (s)",
        "Begin File",
        "End File",
        "File Offset (s)",
        "Species",
    ]
    rows = [
        (0.5, 1.0, "rec0.WAV", "rec0.WAV", 0.5, "frog"),
        (3.5, 4.5, "rec0.WAV", "rec1.WAV", 3.5, "frog"),
        (9.0, 9.5, "rec2.WAV", "rec2.WAV", 1.0, "frog"),
    ]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(folder.data / "all.selections.txt", sep="\t", index=False)
    events = folder.prepare().events
    spans = events[["recording_id", "onset", "offset"]].sort_values(["recording_id", "onset"])
    assert spans.to_numpy().tolist() == [
        ["rec0", 0.5, 1.0],
        ["rec0", 3.5, 4.0],
        ["rec1", 0.0, 0.5],
        ["rec2", 1.0, 1.5],
    ]


def test_an_empty_table_says_that_nothing_calls(folder):
    folder.table("site9/rec9.txt")
    assert by_id(folder.prepare(), "subset")["rec9"] == "train"


def test_subsets_by_pattern_and_list(folder):
    (folder.path / "data" / "holdout.txt").write_text("rec3\n")
    tables = folder.prepare(test=["@holdout.txt"], unlabelled=["site9/*"], train=["site0/*"])
    assert by_id(tables, "subset")["rec3"] == "test"
    assert by_id(tables, "subset")["rec9"] == "unlabelled"
    # What is known of a test recording is for scoring alone.
    assert "rec3" not in set(tables.events["recording_id"])
    assert set(pd.read_csv(folder.out / "test_events.csv")["recording_id"]) == {"rec3"}
    truth = pd.read_csv(folder.out / "test_truth.csv")
    assert truth.to_numpy().tolist() == [["rec3", 1, 1]]
    (folder.data / "holdout.txt").unlink()
    folder.prepare()
    assert not (folder.out / "test_truth.csv").exists()


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ({"by": "folder"}, ["site0", "site0", "site1", "site1", "site9"]),
        ({"by": "pattern", "pattern": r"rec(\d)"}, ["0", "1", "2", "3", "9"]),
        ({"by": "csv", "csv": "groups.csv"}, ["a", "b", "b", "a", "a"]),
        ({"by": "column", "column": "Night"}, ["n0", "n1", "n0", "n1", "rec9"]),
    ],
)
def test_groups(folder, group, expected):
    (folder.data / "groups.csv").write_text(
        "recording,group\nrec0,a\nrec1.WAV,b\nsite1/rec2.WAV,b\nrec3,a\nrec9,a\n"
    )
    for i in range(4):
        path = folder.data / f"site{i // 2}/rec{i}.Table.1.selections.txt"
        lines = path.read_text().splitlines()
        night = ["Night", *[f"n{i % 2}"] * 2]
        rows = [f"{line}\t{text}" for line, text in zip(lines, night, strict=True)]
        path.write_text("\n".join(rows))
    tables = folder.prepare(group=group, annotations=["**/*.selections.txt"])
    assert tables.recordings["group"].tolist() == expected


def test_labels_are_renamed_left_out_and_turned_into_absence(folder):
    folder.table(
        "site0/rec0.Table.1.selections.txt", ("Frog", 0, 1), ("no bird", 1, 2), ("rain", 2, 3)
    )
    tables = folder.prepare(
        annotation="partial",
        rename={"Frog": "frog"},
        ignore=["rain"],
        negatives={"no bird": "bird"},
    )
    rows = tables.events[tables.events["recording_id"] == "rec0"]
    assert rows[["label", "polarity"]].to_numpy().tolist() == [["frog", 1], ["bird", -1]]


def test_files_of_rejected_candidates(folder):
    header = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
    for path in folder.data.rglob("*.txt"):
        path.unlink()
    rows = "".join(f"rec{i},3,1,0.5,500,1.0,900\n" for i in range(3))
    (folder.data / "tp.csv").write_text(header + rows)
    (folder.data / "fp.csv").write_text(header + "rec3,3,1,1.5,500,2.0,900\n")
    with pytest.raises(CanopyError, match=r"say it as polarity 1 or -1"):
        folder.prepare()
    events = folder.prepare(rejected=["fp.csv"], annotation="partial").events
    assert events.set_index("recording_id")["polarity"].to_dict() == {
        **dict.fromkeys(("rec0", "rec1", "rec2"), 1),
        "rec3": -1,
    }


def test_classes_in_the_order_given_or_common_enough(folder):
    assert folder.prepare(classes=["frog", "bird"]).labels == ["frog", "bird"]
    assert folder.prepare(classes=["frog"]).labels == ["frog"]
    folder.table("site0/rec0.Table.1.selections.txt", ("frog", 0, 1), ("owl", 2, 3))
    assert folder.prepare(min_groups=2).labels == ["bird", "frog"]
    assert folder.prepare(min_count=4).labels == ["frog"]


def test_points_and_boxes_without_a_label(folder):
    (folder.data / "site0/rec0.Table.1.selections.txt").unlink()
    (folder.data / "site0/rec0.txt").write_text("0.1\t0.1\tfrog\n2\t3\t\n")
    with pytest.raises(
        CanopyError, match=r"rec0 at 0\.100 s: a label at a point in time \(1 in all"
    ):
        folder.prepare()
    with pytest.raises(CanopyError, match=r"rec0 at 2\.000 s: a box without a label"):
        folder.prepare(empty_label="refuse")
    events = folder.prepare(point_s=0.6).events
    assert events.loc[events["recording_id"] == "rec0", ["onset", "offset"]].to_numpy() == (
        pytest.approx(np.array([[0.0, 0.4]]))
    )


def test_a_substitution_finds_the_recording(folder):
    for path in sorted(folder.data.rglob("*.selections.txt")):
        path.rename(path.with_name(path.name.replace("rec", "gt_")))
    with pytest.raises(
        CanopyError, match=r"gt_0.* no recording, or more than one, is called 'gt_0'"
    ):
        folder.prepare()
    tables = folder.prepare(match={"pattern": "gt_", "to": "rec"})
    assert set(tables.events["recording_id"]) == {"rec0", "rec1", "rec2", "rec3"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"column": "Who"}, r"no column 'Who' for the labels; found Selection"),
        ({"recordings": ["*.mp3"]}, r"no recordings .* match prepare\.recordings \['\*\.mp3'\]"),
        ({"annotations": ["*.xls"]}, r"no annotations match prepare\.annotations"),
        ({"annotation_dir": "none"}, r"none: no such folder"),
        ({"test": ["siteX/*"]}, r"prepare\.test: 'siteX/\*' matches no recording"),
        ({"test": ["rec0"], "train": ["site0/*"]}, r"is in prepare\.train and in prepare\.test"),
        ({"test": ["*"]}, r"no class is left of 0 labels.*which are train"),
        (
            {"classes": ["forg"]},
            r"no train recording has a call labelled 'forg'; did you mean 'frog'",
        ),
        ({"ignore": ["frog", "bird"]}, r"no class is left of 0 labels"),
        ({"n_folds": 5}, r"split\.n_folds \(5\) groups, found bird in 4, frog in 4; lower split"),
        ({"group": {"by": "pattern"}}, r"by: pattern goes with a value of key pattern"),
        ({"group": {"by": "pattern", "pattern": "(x)"}}, r"'\(x\)' finds nothing in 'site0/rec0"),
        ({"group": {"by": "pattern", "pattern": "("}}, r"is no regular expression"),
        ({"group": {"by": "column", "column": "Night"}}, r"annotations have no such column"),
        ({"group": {"by": "csv", "csv": "none.csv"}}, r"none\.csv: no such file"),
        ({"rename": {"frog": "a/b"}}, r"label 'a/b' holds a separator of folders; rename it"),
        ({"rename": {"frog": "Bird"}}, r"differs from '.ird' in case alone; rename it"),
        ({"formt": "raven"}, r"formt"),
    ],
)
def test_what_is_amiss_is_said_in_one_sentence(folder, settings, message):
    with pytest.raises(CanopyError, match=message) as caught:
        folder.prepare(**settings)
    assert "\n" not in str(caught.value)


def test_a_table_of_no_recording_can_be_left_out(folder):
    folder.table("site0/stranger.txt", ("frog", 0, 1))
    with pytest.raises(CanopyError, match=r"is called 'stranger' .* the nearest recording is rec"):
        folder.prepare()
    assert len(folder.prepare(unmatched="ignore").events) == 8


def test_notes_among_the_tables_are_told_from_them(folder):
    (folder.data / "notes.txt").write_text("heard a lot\n")
    with pytest.raises(CanopyError, match=r"notes\.txt.*name those in prepare\.annotations"):
        folder.prepare()
    assert len(folder.prepare(annotations=["**/*.selections.txt"]).events) == 8


def test_times_after_the_end_of_the_recording(folder):
    folder.table("site0/rec0.Table.1.selections.txt", ("frog", 3, 6))
    with pytest.raises(CanopyError, match=r"offset 6\.0 lies after the end of rec0 \(4\.000 s\)"):
        folder.prepare()


def test_calls_above_the_features_band(folder):
    folder.table("site0/rec0.Table.1.selections.txt", ("frog", 0, 1))
    for path in folder.data.rglob("*.selections.txt"):
        path.write_text(path.read_text().replace("\t500\t1500", "\t5000\t6000"))
    with pytest.raises(CanopyError, match=r"lie above 5000 Hz, but features end at 4000 Hz; raise"):
        folder.prepare()


def test_unreadable_recordings_are_listed_up_to_a_share(folder):
    (folder.data / "site0/rec0.WAV").write_bytes(b"")
    with pytest.raises(CanopyError, match=r"1 of 5 recordings cannot be read.*max_invalid_share"):
        folder.prepare()
    tables = folder.prepare(max_invalid_share=0.5)
    assert "rec0" not in by_id(tables, "path")
    assert pd.read_csv(folder.out / "invalid.csv")["path"].tolist() == ["site0/rec0.WAV"]


def test_the_same_name_in_two_folders(folder):
    shutil.copytree(folder.data / "site0", folder.data / "site7")
    tables = folder.prepare()
    assert {"site0_rec0", "site7_rec0", "rec2"} <= set(by_id(tables, "path"))
    assert (tables.events["recording_id"] == "site7_rec0").sum() == 2


def test_ids_name_files_on_any_system():
    assert make_ids(["a/x y.wav", "b/Käuz (1).flac", "-c.ogg"]) == ["x_y", "K_uz__1_", "_c"]
    assert make_ids(["a/x.wav", "b/X.wav"]) == ["a_x", "b_X"]
    with pytest.raises(CanopyError, match=r"x\.flac and x\.wav would both be recording 'x'"):
        make_ids(["x.flac", "x.wav"])


def test_the_default_version_fits_itself():
    config = load_config(ROOT / "conf/mine/default.yaml")
    check_config(config)
    assert config.prepare["settings"] == "auto"
    parse_section(PrepareConfig, of_recipe(config).prepare, "prepare")


@pytest.mark.parametrize("page", ["docs/own-recordings.md", "recipes/mine/README.md"])
def test_the_pages_name_keys_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"prepare\.(?!py)([a-z_]+)", text))
    assert named <= {*PrepareConfig.model_fields, "settings"}
    if page.startswith("recipes"):
        listed = set(re.findall(r"`([a-z_]+)(?:\.[a-z]+)?`", text))
        assert set(PrepareConfig.model_fields) - listed == set()
