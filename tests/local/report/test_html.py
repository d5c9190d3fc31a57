import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from local.report.html import render, write_report
from local.report.page_records import (
    Baseline,
    ChangeExample,
    ChangeRow,
    ClassRow,
    Confusion,
    EventClassRow,
    EventScores,
    Report,
    ScoreRow,
)

HOSTILE = "<script>alert('x')</script>\"' onerror=\"x\" & $title ${facts} \x00\u202e"
VOID = {"meta", "img", "source", "br", "link", "hr", "input"}
NAN = float("nan")


class Page(HTMLParser):
    """Checks that tags balance and keeps what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"{tag} has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def checked(report):
    page = Page(render(report))
    assert page.open == []
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"] for attrs in page.all("a")]
    assert {target[1:] for target in targets} <= set(ids)
    return page


def hostile_report(make_viewer):
    viewer = make_viewer(2, labels=[HOSTILE, "a"], names={HOSTILE: HOSTILE}, note=HOSTILE)
    clip = dataclasses.replace(viewer.clips[0], recording_id=HOSTILE, subset=HOSTILE)
    return Report(
        title=HOSTILE,
        facts=[(HOSTILE, HOSTILE)],
        scores=[ScoreRow(HOSTILE, 0, HOSTILE, 0.5, 0.4, 0.6, 3)],
        event_scores=[
            EventScores(
                *(0, HOSTILE, 3, {HOSTILE: {"micro": (0.5, 0.4, 0.6)}}),
                classes=[EventClassRow(HOSTILE, HOSTILE + "2", 1, 2, {HOSTILE: (0.5, NAN, NAN)})],
                worst=HOSTILE,
            )
        ],
        events=[ScoreRow(HOSTILE, 0, HOSTILE, 0.125, n=3)],
        baselines=[Baseline(HOSTILE, HOSTILE, HOSTILE, 0.2)],
        classes=[ClassRow(HOSTILE, HOSTILE + "2", 3, {HOSTILE: 0.2}, {HOSTILE: 0.2})],
        confusion=Confusion([HOSTILE], [1], np.eye(1), np.eye(1), np.ones(1)),
        changes=[ChangeRow(1, HOSTILE, 1, 1, 1.0, 1, 0)],
        change_examples=[ChangeExample("added", HOSTILE, HOSTILE, 0.0, 1.0)],
        viewer=dataclasses.replace(viewer, clips=[clip, *viewer.clips[1:]]),
        provenance={HOSTILE: {HOSTILE: [HOSTILE]}},
    )


def test_the_page_is_balanced_and_complete(full_report):
    page = checked(full_report)
    headings = {attrs["id"] for attrs in page.all("section")}
    known = {"events", "classes", "confusion", "calibration", "changes", "prevalence"}
    assert headings == {"scores", "recordings", "training", "provenance"} | known
    assert all(attrs["alt"] for attrs in page.all("img"))
    text = "".join(page.text)
    for shown in (
        "0.876",
        "+0.064 since cycle 0",
        "0.840 – 0.910",
        "0.489",
        "25.0 %",
        "owl",
        "owl (25 %)",
        "+0.031",
        "0.431 (0.350–0.520)",
        "1234 (900–2000)",
        "Worst class by F1: owl, 0.050 (1 of 20 true events found, 20 detections)",
    ):
        assert shown in text


def test_hostile_words_stay_words(make_viewer):
    page = checked(hostile_report(make_viewer))
    # The page's own, and data that no browser runs.
    assert [attrs.get("type") for attrs in page.all("script")] == ["application/json", None]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    shown = HOSTILE.replace("\x00", "�").replace("\u202e", "�")
    assert shown in "".join(page.text)


@pytest.mark.slow
def test_nothing_is_fetched(full_report, make_viewer):
    for report in (full_report, hostile_report(make_viewer)):
        page = checked(report)
        addresses = [
            attrs[name]
            for _, attrs in page.tags
            for name in ("src", "href", "srcset", "data", "action")
            if name in attrs
        ]
        assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in addresses)
        # The name of SVG's vocabulary looks like an address but is none.
        text = render(report).replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        assert not re.search(r"url\(|@import", text)


@pytest.mark.slow
def test_the_policy_admits_the_script_of_the_page_and_nothing_else(full_report):
    text = render(full_report)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


@pytest.mark.slow
def test_missing_values_are_no_data(full_report):
    page = "".join(checked(full_report).text)
    assert "nan" not in page.lower()
    # One score, one class score, one count, one missing title and three prevalences, at the least.
    assert page.count("no data") >= 7


PARTS = ["confusion", "calibration", "changes", "change_examples", "viewer"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["facts", "scores", "baselines", "classes", "curves", "provenance", *PARTS]
)
def test_each_part_may_be_empty(full_report, part):
    empty = {"provenance": {}, "confusion": None, "viewer": None}.get(part, ())
    checked(dataclasses.replace(full_report, **{part: empty}))


def test_an_empty_report_says_so():
    page = checked(Report("empty"))
    assert "No scores" in "".join(page.text)
    assert [attrs["id"] for attrs in page.all("section")] == ["scores"]


@pytest.mark.slow
def test_a_small_page_is_one_file_and_the_same_twice(full_report, tmp_path):
    path = tmp_path / "run" / "report.html"
    assert write_report(path, full_report) == [path]
    first = path.read_bytes()
    assert write_report(path, full_report) == [path]
    assert path.read_bytes() == first
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.slow
def test_a_large_page_keeps_its_files_beside_it(full_report, tmp_path):
    path = tmp_path / "report.html"
    written = write_report(path, full_report, max_inline=10_000)
    beside = sorted((tmp_path / "report").iterdir())
    assert written == [path, *beside]
    assert len(beside) == 2 * len(full_report.viewer.clips)
    text = path.read_text(encoding="utf-8")
    assert "report/c00003.mp3" in text
    assert "data:audio" not in text
    # A smaller page takes away what the larger one left, and nothing else.
    (tmp_path / "report" / "mine.txt").write_text("kept")
    write_report(path, full_report)
    assert [each.name for each in (tmp_path / "report").iterdir()] == ["mine.txt"]


def test_a_score_of_a_class_stands_in_its_interval(full_report):
    page = render(full_report)
    assert "0.500 <small>0.38–0.75</small>" in page
    assert '<b style="left:37.5%;width:37.5%"></b>' in page
    assert page.count("<b style=") == 2  # of its score and of its events; the others have none


def test_scores_are_explained(full_report):
    page = render(full_report)
    assert "What these scores mean" in page
    assert "<b>LWLRAP</b>: in each recording" in page
    assert "<b>mAP</b>" not in page
