import base64
import dataclasses
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from local.report.data import Baseline, ClassRow, Detection, Report, ScoreRow
from local.report.html import render, write_report

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


def hostile_report(make_panel):
    events = [Detection(1, 2, HOSTILE, 0.5), Detection(3, 4, "other" + HOSTILE, kind="true")]
    panel = make_panel(
        recording_id=HOSTILE,
        labels=[HOSTILE, "a", "b", "c"],
        names={HOSTILE: HOSTILE},
        events=events,
        note=HOSTILE,
    )
    return Report(
        title=HOSTILE,
        facts=[(HOSTILE, HOSTILE)],
        scores=[ScoreRow(HOSTILE, 0, HOSTILE, 0.5, 0.4, 0.6, 3)],
        baselines=[Baseline(HOSTILE, HOSTILE, HOSTILE, 0.2)],
        classes=[ClassRow(HOSTILE, HOSTILE + "2", 3, {HOSTILE: 0.2}, {HOSTILE: 0.2})],
        panels=[panel],
        provenance={HOSTILE: {HOSTILE: [HOSTILE]}},
    )


def test_the_page_is_balanced_and_complete(full_report):
    page = checked(full_report)
    headings = {attrs["id"] for attrs in page.all("section")}
    assert headings == {"scores", "recordings", "classes", "prevalence", "training", "provenance"}
    assert all(attrs["alt"] for attrs in page.all("img"))
    text = "".join(page.text)
    for shown in ("0.876", "+0.064 since cycle 0", "0.840 – 0.910", "0.489", "25.0 %", "owl"):
        assert shown in text


def test_hostile_words_stay_words(make_panel):
    page = checked(hostile_report(make_panel))
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    shown = HOSTILE.replace("\x00", "�").replace("\u202e", "�")
    assert shown in "".join(page.text)
    assert any(shown in attrs["alt"] for attrs in page.all("img"))


def test_nothing_is_fetched(full_report, make_panel):
    for report in (full_report, hostile_report(make_panel)):
        page = checked(report)
        addresses = [
            attrs[name]
            for _, attrs in page.tags
            for name in ("src", "href", "srcset", "data", "action")
            if name in attrs
        ]
        assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in addresses)
        text = render(report)
        assert "http://" not in text
        assert "https://" not in text
        assert not re.search(r"url\(|@import", text)


def test_the_policy_admits_the_script_of_the_page_and_nothing_else(full_report):
    text = render(full_report)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


def test_missing_values_are_no_data(full_report):
    page = "".join(checked(full_report).text)
    assert "nan" not in page.lower()
    # One score, one class score, one count, one missing title and three prevalences, at the least.
    assert page.count("no data") >= 7


@pytest.mark.parametrize(
    "part", ["facts", "scores", "baselines", "classes", "curves", "panels", "provenance"]
)
def test_each_part_may_be_empty(full_report, part):
    empty = {} if part == "provenance" else ()
    checked(dataclasses.replace(full_report, **{part: empty}))


def test_an_empty_report_says_so():
    page = checked(Report("empty"))
    assert "No scores" in "".join(page.text)
    assert [attrs["id"] for attrs in page.all("section")] == ["scores"]


def test_many_events_are_cut_and_counted(make_panel, full_report):
    events = [Detection(i / 30, i / 30 + 0.1, "owl", 0.5) for i in range(250)]
    panel = make_panel(events=events)
    text = "".join(checked(dataclasses.replace(full_report, panels=[panel])).text)
    assert "250 events" in text
    assert "50 more" in text


def test_six_long_recordings_stay_under_five_megabytes(make_panel, tmp_path):
    rng = np.random.default_rng(0)
    panel = make_panel(
        feats=rng.normal(size=(128, 6000)),
        mel_centres_hz=np.geomspace(50, 16000, 128),
        frame_logit=rng.normal(size=(24, 3000)),
        labels=[f"s{i}" for i in range(24)],
    )
    path = tmp_path / "run" / "report.html"
    write_report(path, Report("big", panels=[panel] * 6))
    assert path.stat().st_size < 5_000_000
    assert list(path.parent.iterdir()) == [path]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
@pytest.mark.parametrize(("clicks", "order"), [(1, "3 1 2 0"), (2, "2 1 3 0")])
def test_a_heading_sorts_numbers_and_leaves_no_data_last(tmp_path, clicks, order):
    values = [NAN, 0.5, 0.0625, 1.0]
    classes = [ClassRow(f"class{i}", n_known=i, scores={"s": v}) for i, v in enumerate(values)]
    page = render(Report("sorted", classes=classes))
    # The page's policy would refuse the finger of this test.
    page = re.sub(r"<meta http-equiv[^>]*>", "", page)
    press = "document.querySelectorAll('#classes th button')[2].click();" * clicks
    page = page.replace("</body>", f"<script>{press}</script></body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    found = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            f"--user-data-dir={tmp_path / 'profile'}",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    body = found[found.index('id="classes"') :]
    assert " ".join(re.findall(r'<th scope="row">class(\d)', body)) == order
    assert 'aria-sort="' + ("descending" if clicks == 1 else "ascending") in body
