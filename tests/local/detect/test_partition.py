"""Site and date out of names, and tables that other tools read as one."""

from datetime import datetime
from pathlib import Path

import pytest

from local.detect.partition import PATTERN, SiteRule, by_day, site_rule
from local.detect.sound import SoundFile
from local.io.errors import CanopyError


def where(path, pattern=PATTERN):
    return SiteRule(pattern).of(SoundFile(Path(path), Path(path).name))


@pytest.mark.parametrize(
    ("path", "site", "date", "time"),
    [
        # AudioMoth, by its folder; with its own number in front.
        ("/d/ridge/20210314_053000.WAV", "ridge", "2021-03-14", (5, 30, 0)),
        (
            "/d/x/24E144036475F3A7_20210314_053000.WAV",
            "24E144036475F3A7",
            "2021-03-14",
            (5, 30, 0),
        ),
        # Song Meters; with the gain, with milliseconds behind (bats).
        ("/d/Data/PAM-4_20210314_053000.wav", "PAM-4", "2021-03-14", (5, 30, 0)),
        ("/d/Data/A1_0+1_20210314_235959.wac", "A1_0+1", "2021-03-14", (23, 59, 59)),
        ("/d/Data/S4U01_20210314_053000_123.wav", "S4U01", "2021-03-14", (5, 30, 0)),
        # BAR, SwiftOne, and people.
        ("/d/west/20210314T053000+1000_REC.flac", "west", "2021-03-14", (5, 30, 0)),
        ("/d/x/S1100_20210314_053000-0500.wav", "S1100", "2021-03-14", (5, 30, 0)),
        ("/d/x/pond_2021-03-14_05-30-00.flac", "pond", "2021-03-14", (5, 30, 0)),
        ("/20210314_053000.wav", "unknown", "2021-03-14", (5, 30, 0)),
    ],
)
def test_names_that_recorders_give(path, site, date, time):
    found = where(path)
    assert (found.site, found.date) == (site, date)
    assert found.start == datetime(2021, 3, 14, *time)


@pytest.mark.parametrize(
    "path", ["/d/ridge/call.wav", "/d/ridge/12345678.wav", "/d/r/x20210314_053000.wav", "/d/r/12_3"]
)
def test_other_names_are_unknown(path):
    assert (where(path).site, where(path).date, where(path).start) == ("unknown", "unknown", None)


def test_numbers_that_are_no_date_are_none():
    found = where("/d/ridge/20211399_053000.wav")
    assert (found.site, found.date, found.start) == ("ridge", "unknown", None)
    assert where("/d/ridge/00010101_000000.wav").date == "unknown"
    assert where("/d/ridge/20210314_250000.wav").date == "2021-03-14"
    assert where("/d/ridge/20210314_250000.wav").start is None


def test_a_pattern_of_ones_own():
    pattern = r"/(?P<site>plot\d+)/(?P<date>\d{4}-\d{2}-\d{2})/"
    found = where("/a/plot7/2020-02-29/rec/1.wav", pattern)
    assert (found.site, found.date, found.start) == ("plot7", "2020-02-29", None)
    only_site = where("/a/plot7/1.wav", r"(?P<site>plot\d+)")
    assert (only_site.site, only_site.date) == ("plot7", "unknown")


@pytest.mark.parametrize(
    ("site", "folder"),
    [
        ("..", "site=%2E%2E"),
        ("a=b&c", "site=a%3Db%26c"),
        ("-rf", "site=%2Drf"),
        ("con", "site=%63on"),
        ("é ü", "site=%C3%A9%20%C3%BC"),
        ("a\\b\n", "site=a%5Cb%0A"),
    ],
)
def test_hostile_sites_stay_one_folder(site, folder):
    found = where(f"/d/x/{site}_20210314_053000.wav")
    assert found.site == site
    assert found.folder == Path(folder, "date=2021-03-14")
    assert len(found.folder.parts) == 2


def test_long_and_undecodable_sites():
    long = "𝄞" * 60
    found = where(f"/d/x/{long}_20210314_053000.wav")
    assert len(found.folder.parts[0].encode()) < 255
    assert found.site != where(f"/d/x/{long}x_20210314_053000.wav").site
    assert where("/d/x/\udcff_20210314_053000.wav").site == "%FF"


def test_days_are_in_order():
    names = ["b_20210102_000000.wav", "a_20210103_000000.wav", "a_20210102_000000.wav", "x.wav"]
    days = by_day(SiteRule(), [SoundFile(Path("/d", name), name) for name in [*names, names[1]]])
    assert list(days.items()) == [
        (("a", "2021-01-02"), [2]),
        (("a", "2021-01-03"), [1, 4]),
        (("b", "2021-01-02"), [0]),
        (("unknown", "unknown"), [3]),
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((True, "(", None), "is no regular expression"),
        ((True, r"\d+", None), "names neither site nor date"),
        ((False, "(?P<site>x)", None), "goes with --partition"),
        ((True, None, ["csv", "parquet"]), "goes with --format parquet"),
        ((True, None, ["raven"]), "goes with --format parquet"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    with pytest.raises(CanopyError, match=words):
        site_rule(*options)
    assert site_rule(False, None, ["csv"]) is None
