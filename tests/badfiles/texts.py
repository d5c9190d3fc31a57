"""Tables, annotations, configurations and JSON: encodings, shapes, names, tags and bombs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local.config import Config, load_config
from local.data.annotations.formats import read_annotations
from local.data.annotations.shared import ReadOptions
from local.data.tables import Tables, read_tables
from local.io.files import read_json
from local.stages.checks import check_config
from tests.badfiles.kinds import Kind, canary, endless, here, pipe, put

RECORDINGS = """recording_id,path,subset,duration,sample_rate,channels,group
r1,train/r1.flac,train,60.5,48000,1,siteÄ
r2,train/r2.flac,train,12.5,48000,2,siteB
"""
EVENTS = """recording_id,label,onset,offset,low_freq,high_freq,polarity,weight,source
r1,Turdus sp.,1.5,2.5,500,3000,1,1,tp
r2,y,0,10.25,,,-1,0.5,fp
"""
CLASSES = "label,name,low_freq,high_freq\nTurdus sp.,T,400,4000\ny,Ypsilon,,\n"


# ------------------------------------------------------------------------------------------ tables


def tables(**texts: str | bytes) -> Callable[[Path], Path]:
    """A folder of the three tables, some of them replaced."""

    def make(folder: Path) -> Path:
        good = {"recordings": RECORDINGS, "events": EVENTS, "classes": CLASSES}
        for name, text in (good | texts).items():
            put(f"{name}.csv", text)(folder)
        return folder

    return make


def swap(old: str, new: str, text: str = RECORDINGS) -> str:
    assert old in text
    return text.replace(old, new)


def right(got: Tables) -> bool:
    """Every value is what the good tables hold."""
    events = got.events
    return (
        got.recordings["duration"].tolist() == [60.5, 12.5]
        and got.recordings["group"].tolist() == ["siteÄ", "siteB"]
        and events["offset"].tolist() == [2.5, 10.25]
        and events["low_freq"].isna().tolist() == [False, True]
        and got.labels == ["Turdus sp.", "y"]
    )


def linked(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Tables whose recordings.csv is what `make` makes."""

    def make_all(folder: Path) -> Path:
        tables()(folder)
        (folder / "recordings.csv").unlink()
        inner = folder / "inner"
        inner.mkdir()
        (folder / "recordings.csv").symlink_to(make(inner))
        return folder

    return make_all


def recordings(text: str | bytes) -> Callable[[Path], Path]:
    return tables(recordings=text)


def german(text: str) -> str:
    """As spreadsheets write tables where the comma is the decimal mark."""
    rows = [line.split(",") for line in text.splitlines()]
    return "\n".join(";".join(cell.replace(".", ",") for cell in row) for row in rows)


def named(identifier: str) -> Callable[[Path], Path]:
    quoted = identifier.replace('"', '""')
    return recordings(swap("r2,train", f'"{quoted}",train'))


def labelled(label: str) -> Callable[[Path], Path]:
    return tables(classes=swap("\ny,", f'\n"{label}",', CLASSES))


TABLES_HANDLED = [
    ("UTF-8", tables()),
    ("UTF-8 with its mark", recordings(b"\xef\xbb\xbf" + RECORDINGS.encode())),
    ("UTF-16", recordings(RECORDINGS.encode("utf-16"))),
    ("UTF-16, big end first", recordings(b"\xfe\xff" + RECORDINGS.encode("utf-16-be"))),
    ("CRLF", recordings(RECORDINGS.replace("\n", "\r\n"))),
    ("CR", recordings(RECORDINGS.replace("\n", "\r"))),
    ("semicolons", recordings(RECORDINGS.replace(",", ";"))),
    ("semicolons and decimal commas", tables(events=german(EVENTS).replace("sp,", "sp."))),
    ("everything quoted", recordings(swap("r1,", '"r1",'))),
    ("empty lines at the end", recordings(RECORDINGS + "\n\n\r\n")),
    ("no line end at the end", recordings(RECORDINGS.rstrip())),
    (
        "columns in another order",
        tables(classes="name,label,high_freq,low_freq\nT,Turdus sp.,,\nY,y,,"),
    ),
]
LONG = 30_000
TABLES_REFUSED = [
    ("UTF-16 without its mark", recordings(RECORDINGS.encode("utf-16-le")), "UTF-8"),
    ("Latin-1", recordings(RECORDINGS.encode("latin-1")), "not readable as UTF-8"),
    ("a NUL", recordings(swap("r2", "r\0")), "NUL character"),
    ("tabs", recordings(RECORDINGS.replace(",", "\t")), "is missing"),
    ("a short row", recordings(swap(",2,siteB", "")), "has 5 fields, expected 7"),
    ("a long row", recordings(swap("siteB", "siteB,x")), "not readable as CSV"),
    ("cut in a row", recordings(RECORDINGS[:-15]), "fields, expected 7"),
    ("a column twice", recordings(swap("channels", "path")), "stands twice"),
    ("a column missing", recordings(swap("group", "site")), "column group is missing"),
    ("empty", recordings(""), "not readable as CSV"),
    ("empty lines alone", recordings("\n" * 10**6), "not readable as CSV"),
    ("a header alone", recordings(RECORDINGS.splitlines()[0]), "no recordings"),
    ("a quote never closed", recordings(swap("siteÄ", '"site') + "x\n" * LONG), "recordings.csv"),
    ("a giant cell", recordings(swap("siteB", "b" * 10**6)), "has a cell of 1000000 characters"),
    ("too many columns", recordings(",".join(map(str, range(LONG)))), "30000 columns"),
    (
        "wide and mostly empty lines",
        recordings(",".join(f"c{i}" for i in range(10_000)) + "\n" * 10**6 + "x"),
        "empty lines",
    ),
    ("a spreadsheet file", recordings(b"PK\x03\x04\x14\0\6\0\x08\0\0\0!\0"), "recordings.csv"),
    ("a pipe", linked(pipe), "pipe or a device"),
    ("a device", linked(endless), "pipe or a device"),
    ("a folder", linked(here), "cannot be read"),
    ("missing", linked(lambda folder: folder / "gone"), "no such table"),
    *[
        (f"the number {text}", recordings(swap("60.5", text)), "expected")
        for text in ("1e999", "nan", "inf", "0x10", "1 2", "sixty", "-1", "0", "1_000", "١٢")
    ],
    *[
        (f"the id {shown or text!r}", named(text), "recordings.csv")
        for text, shown in (
            ("../r", ""),
            ("/etc/passwd", ""),
            ("a\\b", ""),
            ("C:r", ""),
            ("-rf", ""),
            (".", ""),
            ("..", ""),
            (".hidden", ""),
            ("con", ""),
            ("NUL.x", ""),
            ("com1", ""),
            ("r.", ""),
            ("r ", ""),
            ("a\tb", ""),
            ("a\nb", ""),
            ("$(id)", ""),
            ("r;id", ""),
            ("<b>", ""),
            ("=1+1", ""),
            ("x" * 201, "of 201 characters"),
            ("R1", ""),
            ("", ""),
            ("é", ""),
        )
    ],
    *[
        (f"the label {text!r}", labelled(text), "classes.csv")
        for text in (
            "../y",
            "/y",
            "a\\b",
            "-y",
            "..",
            "aux",
            "y ",
            "a\tb",
            "a\u202eb",
            "",
            "TURDUS SP.",
            "y" + "\x07",
        )
    ],
]

# ------------------------------------------------------------------------------------- annotations

RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\t"
    "Annotation\n1\tSpectrogram 1\t1\t1.5\t2.5\t500\t3000\ty\n"
)
AUDACITY = "1.5\t2.5\ty\n\\\t500\t3000\n"


def annotated(got: Any) -> bool:
    row = got.iloc[0]
    return (row["onset"], row["offset"], row["low_freq"], row["label"]) == (1.5, 2.5, 500, "y")


def raven(path: Path) -> Any:
    return read_annotations(path, "raven")


def audacity(path: Path) -> Any:
    return read_annotations(path, "audacity")


ANNOTATIONS_HANDLED = [
    ("raven", RAVEN, raven),
    ("raven with CRLF", RAVEN.replace("\n", "\r\n"), raven),
    ("raven in UTF-16", RAVEN.encode("utf-16"), raven),
    ("audacity", AUDACITY, audacity),
    ("audacity with CRLF and a mark", "\ufeff" + AUDACITY.replace("\n", "\r\n"), audacity),
]
ANNOTATIONS_REFUSED = [
    ("raven without times", RAVEN.replace("Begin Time (s)", "Begin"), raven),
    ("raven with a column twice", RAVEN.replace("Channel", "View"), raven),
    ("raven without labels", RAVEN.replace("Annotation", "Remark"), raven),
    ("raven with words for times", RAVEN.replace("1.5", "half past one"), raven),
    ("raven backwards", RAVEN.replace("1.5", "3.5"), raven),
    ("raven with a long row", RAVEN.rstrip() + "\tmore\n", raven),
    ("raven of infinite time", RAVEN.replace("2.5", "inf"), raven),
    ("raven that is empty", "", raven),
    ("raven that is noise", bytes(range(256)) * 20, raven),
    ("raven with a NUL", RAVEN.replace("y", "\0"), raven),
    ("audacity with words for times", AUDACITY.replace("1.5", "x"), audacity),
    ("audacity backwards", AUDACITY.replace("1.5", "9"), audacity),
    ("audacity of words", "some words\n", audacity),
    ("audacity with lone frequencies", "\\\t500\t3000\n", audacity),
    ("audacity that is noise", bytes(range(256)) * 20, audacity),
]

# ---------------------------------------------------------------------------------- configurations


def laughs(depth: int) -> str:
    """Aliases of aliases: ten to the power of `depth` values."""
    lines = ["seed: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, depth):
        lines.append(f"k{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines)


def running(folder: Path) -> Path:
    """A configuration that would make a folder if it were let."""
    text = f"seed: !!python/object/apply:os.mkdir ['{canary(folder)}']\n"
    return put("a.yaml", text)(folder)


def chain(folder: Path) -> Path:
    for number in range(40):
        put(f"{number}.yaml", f"base: {number + 1}.yaml\n")(folder)
    return folder / "0.yaml"


def plain(encoding: str | None = None) -> Callable[[Path], Any]:
    return lambda path: read_annotations(path, "plain", ReadOptions(encoding=encoding))


def check(path: Path) -> None:
    check_config(load_config(path))


def setting(override: str) -> Callable[[Path], Config]:
    return lambda path: load_config(path, [override])


YAML_REFUSED = [
    ("aliases that grow", laughs(9), "counting its aliases"),
    (
        "merges that grow",
        "a: &a {x: 1}\nb: &b {<<: [*a, *a], y: *a}\nq: {<<: *b}\n",
        "not readable as YAML",
    ),
    ("an alias of itself", "prepare: &a [*a]\n", "holds itself"),
    ("a key twice", "seed: 1\nseed: 2\n", "stands twice"),
    ("nested too deep", "prepare: " + "[" * 2000 + "]" * 2000, "deeper than"),
    ("too large", "# " + "x" * 10**6, "may have at most"),
    ("not UTF-8", b"seed: \xff\xff\n", "not readable as UTF-8"),
    ("a NUL", b"seed: 1\0\n", "NUL character"),
    ("tabs", "audio:\n\tsample_rate: 8000\n", "not readable as YAML"),
    ("two documents", "seed: 1\n---\nseed: 2\n", "not readable as YAML"),
    ("a list", "- 1\n- 2\n", "expected sections"),
    ("a word", "seed\n", "expected sections"),
    ("a tag of ours", "seed: !ours 1\n", "has the tag"),
    ("a binary tag", "prepare: {x: !!binary aGVsbG8=}\n", "has the tag"),
    ("a number of 5000 digits", "seed: " + "9" * 5000, "a.yaml"),
    ("a number of 30,000 hex digits", "seed: 0x" + "f" * 30_000, "thousands of digits"),
    ("a number in sixties", "seed: " + ":".join(["59"] * 20_000), "thousands of digits"),
    ("a long word for a number", "seed: " + "x" * 10**5, "seed"),
    ("a transform of a trillion", "features: {n_fft: 1099511627776}\n", "n_fft"),
    ("resamples without end", "score: {n_bootstrap: 100000000000}\n", "n_bootstrap"),
    ("folds without end", "split: {n_folds: 1000000000}\n", "n_folds"),
    ("processes without end", "train: {n_workers: 1000000}\n", "n_workers"),
    ("a merge of a number", "<<: 5\nseed: 1\n", "not readable as YAML"),
    ("another YAML", "%YAML 9.9\n---\nseed: 1\n", "not readable as YAML"),
    ("infinity", "window: {length_s: .inf}\n", "length_s"),
    ("not a number", "window: {length_s: .nan}\n", "length_s"),
    ("a list as a key", "? [1, 2]\n: 3\n", "a.yaml"),
    ("a number as a key", "audio: {1: 2}\n", "a.yaml"),
    ("a date", "seed: 2001-01-01\n", "seed"),
    ("an impossible date", "seed: 2001-99-99\n", "seed"),
    ("a base of itself", "base: a.yaml\n", "leads back to itself"),
    ("a base that is missing", "base: gone.yaml\n", "no such configuration"),
    ("a base with a NUL", 'base: "a\\0b"\n', "no file can be named"),
    ("a base that is a device", "base: /dev/zero\n", "pipe or a device"),
    ("a base that is a list", "base: [a, b]\n", "must be the path"),
]
SET_REFUSED = [
    "seed",
    "=1",
    "a..b=1",
    "seed=!!python/name:os.system",
    "seed=[",
    "seed={a: 1, a: 2}",
]
SET_REFUSED += ["seed=2001-99-99", ".".join("a" * 500) + "=1", "audio=3", "seed=" + "9" * 5000]

PLAIN = "recording_id,label,onset,offset\nr1,a,0,1\n"
PLAIN_REFUSED = [
    ("200,000 columns", ",".join(f"c{i}" for i in range(200_000)), plain(), "columns"),
    ("a codec that is none", PLAIN, plain("undefined"), "is unknown"),
    ("a codec with a NUL", PLAIN, plain("a\0b"), "is unknown"),
    ("a codec that unpacks", PLAIN, plain("zlib_codec"), "is unknown"),
    ("a field of 10 MB", PLAIN + 'r1,"' + "x" * 10**7 + '",0,1\n', plain(), "field larger"),
    ("digits of others", PLAIN + "r1,a,\u0663,\u0664\n", plain(), "expected a number"),
]
CHECKS_REFUSED = [
    ("filters by the hundred million", "features: {n_mels: 100000000}\n", "filters"),
    ("a window of ages", "window: {length_s: 1.0e+300}\n", "shorten"),
    ("a view of ages", "inference: {window_s: 1.0e+12}\n", "shorten"),
    ("a model of terabytes", "model: {params: {gru: 400000}}\n", "numbers"),
]

JSON_REFUSED = [
    ("cut", '{"a": [1, 2'),
    ("nested too deep", "[" * 10**5),
    ("a number of 5000 digits", "9" * 5000),
    ("not UTF-8", b'"\xff"'),
    ("empty", ""),
]

KINDS = [
    Kind(f"table: {name}", make, read_tables, check=right) for name, make in TABLES_HANDLED[:-1]
]
KINDS.append(
    Kind(f"table: {TABLES_HANDLED[-1][0]}", TABLES_HANDLED[-1][1], read_tables, check=right)
)
KINDS += [Kind(f"table: {name}", make, read_tables, part) for name, make, part in TABLES_REFUSED]
KINDS += [
    Kind(f"annotation: {name}", put("r1.txt", text), read, check=annotated)
    for name, text, read in ANNOTATIONS_HANDLED
]
KINDS += [
    Kind(f"annotation: {name}", put("r1.txt", text), read, "r1.txt")
    for name, text, read in ANNOTATIONS_REFUSED
]
KINDS += [
    Kind(f"yaml: {name}", put("a.yaml", text), load_config, part)
    for name, text, part in YAML_REFUSED
]
KINDS += [
    Kind("yaml: a tag that runs code", running, load_config, "has the tag"),
    Kind("yaml: a chain of forty bases", chain, load_config, "more than 16 files"),
    Kind("yaml: empty", put("a.yaml", ""), load_config, check=lambda got: got == Config()),
    Kind(
        "yaml: small aliases",
        put("a.yaml", "audio: &a {sample_rate: 8000}\nprepare: {x: *a}\n"),
        load_config,
        check=lambda got: got.prepare == {"x": {"sample_rate": 8000}},
    ),
]
KINDS += [
    Kind(f"--set {text:.40}", put("a.yaml", ""), setting(text), "a" if text == "audio=3" else "se")
    for text in SET_REFUSED
]
KINDS += [
    Kind(f"json: {name}", put("a.json", text), read_json, "a.json") for name, text in JSON_REFUSED
]
KINDS += [
    Kind(f"check: {name}", put("a.yaml", text), check, part) for name, text, part in CHECKS_REFUSED
]
KINDS += [
    Kind(f"plain annotation: {name}", put("r1.csv", text), read, part)
    for name, text, read, part in PLAIN_REFUSED
]
KINDS.append(
    Kind("json: small", put("a.json", json.dumps([1])), read_json, check=lambda got: got == [1])
)
