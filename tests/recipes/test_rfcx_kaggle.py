"""Download and submission with the official client, which a recorder stands in for here."""

import json
import stat
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from local.io.errors import CanopyError
from recipes.rfcx import client, download, upload
from recipes.rfcx.client import SLUG, call_client, find_client
from recipes.rfcx.download import fetch, unpack
from recipes.rfcx.prepare import main as prepare

KEY = "s3cr3t-0123456789abcdef"
HEADER = "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n"
# Does what the official client does with the files of this test, and writes down how it was called.
FAKE = """#!{python}
import json, os, shutil, sys
with open({record!r}, "a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
if os.environ.get("FAIL"):
    print("403 - Forbidden"); sys.exit(1)
if sys.argv[2] == "download":
    shutil.copy({archive!r}, sys.argv[sys.argv.index("-p") + 1])
else:
    print(os.environ.get("ANSWER", "Successfully submitted to RFCX"))
"""


def flac(path):
    soundfile.write(path, [0.0, 0.1] * 2000, 4000)
    return path.read_bytes()


@pytest.fixture
def archive(tmp_path):
    """Function: more members -> an archive in the competition's layout."""
    sound = flac(tmp_path / "x.flac")

    def make(more=(), without=()):
        path = tmp_path / "remote" / f"{SLUG}.zip"
        path.parent.mkdir(exist_ok=True)
        files = {f"train/{name}.flac": sound for name in ("aa", "bb")} | {"test/cc.flac": sound}
        files |= {
            "train_tp.csv": HEADER + "aa,0,1,0.1,100,0.5,900\nbb,1,1,0.1,100,0.5,900\n",
            "train_fp.csv": HEADER,
            "sample_submission.csv": "recording_id,s0,s1\ncc,0,0\n",
            "tfrecords/train/00-148.tfrec": b"\0" * 4096,
            "readme.txt": "hello",
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in [*files.items(), *more]:
                if name not in without:
                    packed.writestr(name, content)
        return path

    return make


@pytest.fixture
def kaggle(tmp_path, monkeypatch, archive):
    """A `kaggle` on PATH and credentials in the environment; the calls it got."""
    record, folder = tmp_path / "calls", tmp_path / "path"
    folder.mkdir()
    script = folder / "kaggle"
    text = FAKE.format(
        python=sys.executable,
        record=str(record),
        archive=str(tmp_path / "remote" / f"{SLUG}.zip"),
    )
    script.write_text(text)
    script.chmod(0o755)
    archive()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KAGGLE_CONFIG_DIR", "KAGGLE_API_TOKEN", "XDG_CONFIG_HOME", "FAIL", "ANSWER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    return lambda: [json.loads(line) for line in record.read_text().splitlines()]


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


WANTED = [
    "sample_submission.csv",
    "test/cc.flac",
    "train/aa.flac",
    "train/bb.flac",
    "train_fp.csv",
    "train_tp.csv",
]


def run_prepare(tmp_path, data, *settings):
    conf = tmp_path / "v.yaml"
    conf.write_text("")
    options = ["--datadir", str(data), "--out", str(tmp_path / "tables"), "--conf", str(conf)]
    return prepare([*options, *(word for text in settings for word in ("--set", text))])


def test_preparation_fetches_unpacks_and_prepares(kaggle, tmp_path, data):
    assert run_prepare(tmp_path, data, "prepare.download=true") == 0
    assert kaggle() == [["competitions", "download", SLUG, "-p", str(data)]]
    assert files(data) == sorted([*WANTED, f"{SLUG}.zip", "download.done.json"])
    assert (tmp_path / "tables" / "recordings.csv").is_file()
    # Again, and after the archive was removed: nothing is fetched.
    (data / f"{SLUG}.zip").unlink()
    before = (tmp_path / "tables" / "events.csv").stat().st_mtime_ns
    assert run_prepare(tmp_path, data, "prepare.download=true") == 0
    assert run_prepare(tmp_path, data) == 0
    assert len(kaggle()) == 1
    assert (tmp_path / "tables" / "events.csv").stat().st_mtime_ns == before


def test_nothing_secret_is_written(kaggle, tmp_path, data, capfd, monkeypatch):
    """Pins defect 44 of earlier systems: credentials and paths of one machine in the files."""
    run_prepare(tmp_path, data, "prepare.download=true")
    run = tmp_path / "run"
    run.mkdir()
    (run / "submission.csv").write_text("recording_id,s0,s1\ncc,0.1,0.2\n")
    upload.main([str(run), "--message", "first"])
    (data / "download.done.json").unlink()
    (data / f"{SLUG}.zip").unlink()
    (data / "train_tp.csv").unlink()
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(CanopyError) as caught:
        fetch(data)
    out, err = capfd.readouterr()
    assert KEY not in str(caught.value) + out + err
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    assert all(KEY not in word and "ada" not in word for call in kaggle() for word in call)


def test_data_that_are_there_need_no_client(tmp_path, data, archive, monkeypatch):
    unpack(archive(), _made(data))
    monkeypatch.setenv("PATH", "")
    fetch(data)
    assert files(data) == WANTED


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_download_that_broke_off_goes_on(kaggle, data):
    # Half an archive is fetched again; half an unpacking is finished, and what is whole is kept.
    _made(data)
    (data / f"{SLUG}.zip").write_bytes(b"PK\x03\x04 half")
    fetch(data)
    assert len(kaggle()) == 1
    (data / "download.done.json").unlink()
    (data / "train" / "bb.flac").unlink()
    (data / "test" / "cc.flac").write_bytes(b"half")
    kept = (data / "train" / "aa.flac").stat().st_mtime_ns
    fetch(data)
    assert len(kaggle()) == 1
    assert set(WANTED) <= set(files(data))
    assert (data / "train" / "aa.flac").stat().st_mtime_ns == kept
    assert (data / "test" / "cc.flac").read_bytes() == (data / "train" / "aa.flac").read_bytes()


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name", ["../evil.flac", "train/../../evil.flac", "/tmp/evil.flac", "train\\..\\..\\evil.flac",
             "C:\\evil.flac", link("train/evil.flac")]
)  # fmt: skip
def test_an_archive_that_climbs_is_refused_whole(archive, data, name):
    path = archive([(name, b"/etc/passwd")])
    with pytest.raises(CanopyError, match="nothing was unpacked"):
        unpack(path, _made(data))
    assert files(data.parent / "data") == []


@pytest.mark.parametrize("name", ["train/sub/x.flac", "train/.x.flac", "train/x.exe", "x.csv"])
def test_what_is_not_of_the_layout_is_passed_over(archive, data, name):
    unpack(archive([(name, b"x")]), _made(data))
    assert files(data) == WANTED


def test_a_damaged_archive_is_named_and_leaves_whole_files_only(archive, data):
    path = archive()
    with zipfile.ZipFile(path) as packed:
        place = packed.getinfo("train/bb.flac").header_offset + 60
    content = bytearray(path.read_bytes())
    content[place : place + 20] = b"\xff" * 20
    path.write_bytes(content)
    with pytest.raises(CanopyError, match="is damaged"):
        unpack(path, _made(data))
    assert files(data) == ["train/aa.flac"]


def test_too_little_room_is_told_before_anything(archive, data, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CanopyError, match="GB are free"):
        unpack(archive(), _made(data))
    assert files(data) == []


def test_another_archive_is_not_taken_for_the_competition(kaggle, archive, data):
    archive(without=["train_fp.csv"])
    with pytest.raises(CanopyError, match=r"has no train_fp\.csv"):
        fetch(data)
    assert not (data / "download.done.json").exists()


# ------------------------------------------------------------------------- client and credentials


def test_without_a_client_it_says_what_to_install(kaggle, data, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(client.sys, "executable", str(tmp_path / "venv/bin/python"))
    with pytest.raises(CanopyError) as caught:
        fetch(data)
    assert f"-m pip install -r {client._shown(client.REQUIREMENTS)}" in str(caught.value)
    assert f"kaggle.com/competitions/{SLUG}/data" in str(caught.value)
    assert client.REQUIREMENTS.is_file()


def test_the_client_beside_python_is_found(kaggle, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    folder = tmp_path / "path"
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setattr(client.sys, "executable", str(folder / "python"))
    assert find_client() == str(folder / "kaggle")


def test_without_credentials_it_says_where_they_go_and_calls_nothing(
    kaggle, data, monkeypatch, tmp_path
):
    monkeypatch.delenv("KAGGLE_KEY")
    with pytest.raises(CanopyError) as caught:
        fetch(data)
    for words in ("~/.kaggle/kaggle.json", "KAGGLE_USERNAME", f"{SLUG}/rules", "settings"):
        assert words in str(caught.value)
    assert not (tmp_path / "calls").exists()
    token = tmp_path / "home" / ".kaggle" / "kaggle.json"
    token.parent.mkdir(parents=True)
    token.write_text("{}")
    fetch(data)
    assert len(kaggle()) == 1


def test_a_refusal_says_what_may_be_missing(kaggle, data, monkeypatch):
    monkeypatch.setenv("FAIL", "1")
    with pytest.raises(CanopyError, match=r"ended with code 1.*403, accept the rules at"):
        fetch(data)
    assert files(data) == []


def test_a_client_that_leaves_half_an_archive(kaggle, tmp_path, data):
    (tmp_path / "remote" / f"{SLUG}.zip").write_bytes(b"half")
    with pytest.raises(CanopyError, match="no whole archive"):
        fetch(data)


# ------------------------------------------------------------------------------------- submission


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "v021"
    folder.mkdir()
    (folder / "submission.csv").write_text("recording_id,s0,s1\ncc,0.1,0.2\n")
    return folder


def test_submission_reaches_the_client(kaggle, run, capsys):
    assert upload.main([str(run), "--message", "-x; $(rm) 'it"]) == 0
    assert upload.main([str(run)]) == 0
    start = ["competitions", "submit", SLUG, f"--file={run / 'submission.csv'}"]
    assert kaggle() == [[*start, "--message=-x; $(rm) 'it"], [*start, "--message=v021"]]
    out = capsys.readouterr().out
    assert "Successfully submitted" in out
    assert "bin/ledger.py set v021 --public SCORE" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recording_id,s0,s1\ncc,0.1,1.2\n", "no probability"),
        ("recording_id,s0,s1\ncc,0.1,\n", "must be a number"),
        ("recording_id,s0\ncc,0.1\ncc,0.1\n", "stands twice"),
        (None, "no such file"),
    ],
)
def test_a_faulty_submission_is_not_sent(kaggle, run, tmp_path, text, words):
    (run / "submission.csv").unlink()
    if text is not None:
        (run / "submission.csv").write_text(text)
    with pytest.raises(CanopyError, match=words):
        upload.main([str(run)])
    assert not (tmp_path / "calls").exists()


def test_an_upload_that_failed_is_no_success(kaggle, run, monkeypatch):
    # The client ends with 0 here.
    monkeypatch.setenv("ANSWER", "Could not submit to competition")
    with pytest.raises(CanopyError, match="was not taken"):
        upload.main([str(run)])


def test_no_word_of_the_environment_is_on_the_command_line(kaggle, run):
    call_client("submit", SLUG, "--file=x", "--message=y", keep_output=True)
    assert KEY not in json.dumps(kaggle())
