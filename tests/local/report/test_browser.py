"""The page in a real browser: looked at, listened to, filtered, judged, downloaded.

Skipped where no Chromium is installed (Debian's package is `chromium`).
"""

import dataclasses
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from local.data.reviewed import read_reviewed
from local.data.tables import EVENT_COLUMNS
from local.report.html import write_report
from local.report.page_records import ClassRow, Clip, Item, Media, Report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
)
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\">'\"`${1}"
NAN = float("nan")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page in"),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS.split())
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Function: report, width, options of the context -> a page without any fault so far."""
    contexts, faults = [], []

    def build(report, width=1280, height=900, max_inline=20_000_000, **options):
        path = tmp_path / "report.html"
        write_report(path, report, max_inline)
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if is_fault(line) else None)
        page.goto(path.as_uri())
        return page

    yield build
    for context in contexts:
        context.close()
    assert faults == []


def is_fault(line) -> bool:
    """An error that the page did not mean; the policy's refusals of a test's requests are meant."""
    return line.type == "error" and "example.org" not in line.text


@pytest.fixture
def report(make_viewer):
    return Report("a run", viewer=make_viewer())


def downloaded(page, button: str, path) -> pd.DataFrame:
    with page.expect_download() as waiting:
        page.click(button)
    waiting.value.save_as(path)
    return pd.read_csv(path)


def chosen(page) -> str:
    return page.inner_text("#chosen")


def until(page, condition: str) -> None:
    """Wait for a condition; the driver's own waiting is refused by the page's policy."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never: {condition}")


# ----------------------------------------------------------------------------- looking, listening


def test_it_shows_boxes_scores_and_the_first_detection(open_page, report):
    page = open_page(report)
    assert page.is_visible("#viewer")
    assert page.inner_text("#count") == "14 of 14 shown"
    assert chosen(page) == "◆ detected: frog Common frog, 1.00 to 1.25 s, score 0.95"
    # Two detections, one missed label, three labels; each kind with a line of its own.
    kinds = page.eval_on_selector_all(".box", "all => all.map(e => e.classList[1])")
    assert sorted(kinds) == ["k0", "k2", "k3", "k4", "k4", "k5"]
    dashes = {
        page.eval_on_selector(f".box.k{kind} .edge", "e => getComputedStyle(e).strokeDasharray")
        for kind in (0, 2, 3, 4, 5)
    }
    assert len(dashes) == 5
    signs = page.eval_on_selector_all(".tag text", "all => all.map(e => e.textContent[0])")
    assert {"●", "◆"} <= set(signs)
    picture = page.get_attribute(".canvas image", "href")
    assert picture.startswith("data:image/png;base64,")
    assert page.eval_on_selector_all(".canvas polyline", "all => all.length") == 2


@pytest.mark.parametrize("max_inline", [20_000_000, 1000])
def test_sound_plays_and_the_cursor_moves_with_it(open_page, report, max_inline):
    page = open_page(report, max_inline=max_inline)
    until(page, "document.querySelector('#time').textContent.startsWith('0.70')")
    before = float(page.get_attribute(".cursor", "x1"))
    page.click("#play")
    until(page, "document.querySelector('#play').textContent === '❚❚ Pause'")
    until(page, "parseFloat(document.querySelector('#time').textContent) > 1.0")
    assert float(page.get_attribute(".cursor", "x1")) > before
    page.click("#play")
    until(page, "document.querySelector('#play').textContent === '▶ Play'")
    # A click in the picture goes there.
    box = page.query_selector("#stage").bounding_box()
    page.mouse.click(box["x"] + 40 + 0.75 * (box["width"] - 48), box["y"] + 4)
    assert float(page.inner_text("#time").split()[0]) == pytest.approx(4.5, abs=0.05)


def test_the_sound_stands_where_the_picture_says(open_page, report):
    page = open_page(report)
    onset = page.evaluate(
        """async () => {
          const packed = JSON.parse(document.getElementById("viewer-data").textContent);
          const text = packed.clips[0].snd.split(",")[1];
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          const sound = await new OfflineAudioContext(1, 1, 48000).decodeAudioData(bytes.buffer);
          const samples = sound.getChannelData(0);
          return samples.findIndex((v) => Math.abs(v) > 0.3) / sound.sampleRate;
        }"""
    )
    assert onset == pytest.approx(1.0, abs=0.05)


def test_slowed_sound_shows_the_recording_s_time(open_page, make_viewer):
    viewer = make_viewer(1, expansion=10.0)
    clip = dataclasses.replace(viewer.clips[0], end_s=0.6)
    clip = dataclasses.replace(clip, items=[Item("frog", 0.1, 0.125, 0.9)], events=[])
    page = open_page(Report("bats", viewer=dataclasses.replace(viewer, clips=[clip])))
    assert "10 times slower" in page.inner_text("#viewer")
    page.click("#play")
    page.wait_for_timeout(700)
    page.click("#play")
    assert 0.02 < float(page.inner_text("#time").split()[0]) < 0.3


def test_without_sound_it_says_so(open_page, make_viewer):
    page = open_page(Report("silent", viewer=make_viewer(2, with_media=False)))
    assert page.is_disabled("#play")
    assert page.is_visible("#silence")


# ------------------------------------------------------------------------------- filter and judge


def test_filters_and_orders(open_page, report):
    page = open_page(report)
    page.select_option("#by-kind", "missed")
    assert page.inner_text("#count") == "2 of 14 shown"
    page.select_option("#by-kind", "any")
    page.select_option("#by-label", label="owl")
    page.select_option("#by-subset", "train")
    rows = page.eval_on_selector_all(".item b", "all => all.map(e => e.textContent)")
    assert set(rows) == {"owl"}
    page.select_option("#by-label", "")
    page.select_option("#by-subset", "")
    page.fill("#by-least", "0.9")
    assert page.inner_text("#count") == "1 of 14 shown"
    page.fill("#by-least", "0")
    page.select_option("#by-sort", "cycle")
    first = page.inner_text(".item small")
    assert first.startswith("rec0005")  # by_cycle is largest at number 2: 0.74, then 5: 0.85


def test_one_recording_s_rows_are_found_by_its_name(open_page, report):
    page = open_page(report)
    page.fill("#by-id", "REC0003")
    rows = page.eval_on_selector_all(".item small", "all => all.map(e => e.textContent)")
    places = [row for row in rows if row.startswith("rec")]
    assert {row.split()[0] for row in places} == {"rec0003"}
    # Letters typed there are no commands.
    before = chosen(page)
    page.focus("#by-id")
    page.keyboard.type("jr")
    assert chosen(page) == before
    assert page.inner_text("#progress") == "Reviewed: 0 right, 0 wrong, 0 unsure"


def test_recordings_with_nothing_to_judge_can_be_looked_at(open_page, make_viewer):
    viewer = make_viewer(4)
    clips = [
        dataclasses.replace(clip, items=[]) if number % 2 else clip
        for number, clip in enumerate(viewer.clips)
    ]
    page = open_page(Report("some", viewer=dataclasses.replace(viewer, clips=clips)))
    assert page.inner_text("#count") == "5 of 5 shown"
    page.select_option("#by-kind", "empty")
    assert page.inner_text("#count") == "2 of 4 recordings or parts"
    page.click(".item")
    assert page.inner_text("#clip-title") == "rec0001"
    assert page.get_attribute(".canvas image", "href")
    assert page.is_disabled('[data-verdict="right"]')
    page.focus("#items")
    page.keyboard.press("r")
    assert page.inner_text("#progress") == "Reviewed: 0 right, 0 wrong, 0 unsure"
    page.keyboard.press("j")
    assert page.inner_text("#clip-title") == "rec0003"


def test_what_is_tapped_in_the_list_comes_into_view_on_a_phone(open_page, report):
    page = open_page(report, width=390, height=844)
    page.evaluate("document.getElementById('download').scrollIntoView()")
    page.click(".item >> nth=2")
    until(page, "document.getElementById('clip-title').getBoundingClientRect().top > -1")
    place = page.evaluate("document.getElementById('stage').getBoundingClientRect().top")
    assert 0 <= place < 844


def test_bars_of_one_class_cover_each_other_only_within_a_kind(open_page, report):
    page = open_page(report)
    rows = page.eval_on_selector_all(
        ".strip-bars rect",
        "all => all.map(e => [e.classList[1], e.getBBox().y, e.getBBox().height])",
    )
    places = {}
    for kind, top, height in rows:
        assert height == 5
        places.setdefault(kind, set()).add(top)
    assert {"k0", "k2", "k3", "k4"} <= set(places)
    given = places["k0"] | places["k2"]
    assert not places["k3"] & places["k4"]
    assert not given & (places["k3"] | places["k4"])


def test_a_page_that_is_too_narrow_for_a_picture_is_no_fault(open_page, report):
    page = open_page(report)
    page.evaluate("document.getElementById('stage').style.width = '30px'")
    page.wait_for_timeout(100)
    page.evaluate("document.getElementById('stage').style.width = ''")
    until(page, "document.querySelector('.canvas svg').clientWidth > 300")


def test_the_whole_review_by_keyboard(open_page, report, tmp_path):
    page = open_page(report)
    page.focus("#items")
    assert page.evaluate("document.activeElement.id") == "items"
    first = chosen(page)
    page.keyboard.press("j")
    second = chosen(page)
    assert second != first
    page.keyboard.press("k")
    assert chosen(page) == first
    page.keyboard.press("r")
    assert chosen(page) == second
    page.keyboard.press("w")
    page.keyboard.press("u")
    page.keyboard.press("ArrowUp")
    assert page.get_attribute('[data-verdict="unsure"]', "aria-pressed") == "true"
    page.keyboard.press("c")
    assert page.get_attribute('[data-verdict="unsure"]', "aria-pressed") == "false"
    assert page.inner_text("#progress") == "Reviewed: 1 right, 1 wrong, 0 unsure"
    page.keyboard.press(" ")
    until(page, "document.querySelector('#play').textContent === '❚❚ Pause'")
    page.keyboard.press(" ")
    rows = downloaded(page, "#download", tmp_path / "events.csv")
    assert rows.columns.tolist() == list(EVENT_COLUMNS)
    assert sorted(rows["polarity"]) == [-1, 1]
    assert set(rows["source"]) == {"review"}
    # Keys can be put to rest, and letters typed elsewhere are no commands.
    page.uncheck("#use-keys")
    before = chosen(page)
    page.focus("#items")
    page.keyboard.press("j")
    assert chosen(page) == before


def test_focus_shows_and_everything_has_a_name(open_page, report):
    page = open_page(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        outline, name = page.evaluate(
            """() => {
              const e = document.activeElement;
              const around = e.closest(".button") || e;
              const label = e.getAttribute("aria-label") || e.textContent.trim() ||
                (e.labels && e.labels.length && e.labels[0].textContent.trim());
              return [getComputedStyle(around).outlineStyle, label || e.outerHTML];
            }"""
        )
        if page.evaluate("document.activeElement === document.body"):
            break
        assert outline != "none", name
        assert not name.startswith("<"), name
        seen.add(name)
    assert {"✓ Right", "▶ Play", "Filter and sort"} <= seen


def test_verdicts_are_kept_loaded_and_forgotten(open_page, report, tmp_path):
    page = open_page(report)
    page.click('[data-verdict="right"]')
    page.click('[data-verdict="unsure"]')
    page.reload()
    assert page.inner_text("#progress") == "Reviewed: 1 right, 0 wrong, 1 unsure"
    unsure = downloaded(page, "#download-unsure", tmp_path / "unsure.csv")
    assert unsure["polarity"].isna().all()
    assert unsure["source"].tolist() == ["review:unsure"]
    downloaded(page, "#download", tmp_path / "events.csv")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#forget")
    assert page.inner_text("#progress") == "Reviewed: 0 right, 0 wrong, 0 unsure"
    page.set_input_files("#load", [tmp_path / "events.csv", tmp_path / "unsure.csv"])
    until(page, "document.querySelector('#progress').textContent.includes('1 unsure')")
    assert page.inner_text("#progress") == "Reviewed: 1 right, 0 wrong, 1 unsure"
    (tmp_path / "wrong.csv").write_text("recording_id,label\na,b\n")
    page.set_input_files("#load", tmp_path / "wrong.csv")
    until(page, "document.querySelector('#said').textContent.includes('no column')")


def test_what_is_downloaded_is_what_the_pipeline_reads(open_page, make_viewer, tmp_path):
    names = ['a "quoted", frog', "owl, great", "toad"]
    page = open_page(Report("names", viewer=make_viewer(labels=names)))
    for verdict in ("right", "wrong", "wrong"):
        page.click(f'[data-verdict="{verdict}"]')
    downloaded(page, "#download", tmp_path / "events.csv")
    durations = pd.Series(6.0, index=[f"rec{i:04d}" for i in range(6)])
    rows = read_reviewed([tmp_path / "events.csv"], durations, names)
    assert sorted(rows["polarity"]) == [-1, -1, 1]
    assert set(rows["label"]) <= set(names)
    assert (rows["weight"] == 1).all()
    assert rows["low_freq"].notna().any()


def test_without_storage_it_still_works_and_says_so(open_page, report, tmp_path, browser):
    write_report(tmp_path / "blocked.html", report)
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', "
        "{ get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    page.goto((tmp_path / "blocked.html").as_uri())
    assert page.is_visible("#not-kept")
    page.click('[data-verdict="right"]')
    assert "download" in page.inner_text("#said")
    assert len(downloaded(page, "#download", tmp_path / "events.csv")) == 1
    context.close()


# ------------------------------------------------------------------------------- safe, every where


def test_hostile_names_do_nothing(open_page, make_viewer):
    viewer = make_viewer(3, labels=[HOSTILE, "b", "c"], names={"b": HOSTILE})
    clips = [dataclasses.replace(clip, recording_id=HOSTILE) for clip in viewer.clips]
    viewer = dataclasses.replace(viewer, clips=clips, key=HOSTILE, note=HOSTILE)
    page = open_page(Report("names", viewer=viewer))
    page.click('[data-verdict="right"]')
    page.wait_for_timeout(200)
    assert page.title() == "names"
    assert page.inner_text("#clip-title") == HOSTILE
    assert page.query_selector("img[src=x]") is None
    assert HOSTILE in page.inner_text(".item small")


def test_nothing_leaves_the_machine(open_page, report):
    page = open_page(report)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.click("#play")
    page.wait_for_timeout(200)
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    refused = page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')")
    assert refused == "refused"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(open_page, full_report, width, scheme):
    page = open_page(full_report, width=width, height=844, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    for kind in ("#chosen", "#count", ".item b", ".item small", ".legend", "#download", "caption"):
        assert contrast(page, kind) >= 4.5 or kind == "#download", kind
    # What is pressed with a finger is large enough for one.
    for button in page.query_selector_all("#viewer .judge button"):
        if button.is_visible():
            assert button.bounding_box()["height"] >= 38


def test_the_reader_may_choose_the_scheme(open_page, full_report):
    page = open_page(full_report, color_scheme="light")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    before = page.locator("#scores figure").screenshot()
    page.click("#scheme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.locator("#scores figure").screenshot() != before
    page.reload()
    assert page.inner_text("#scheme") == "Light colours"


@pytest.mark.parametrize(("clicks", "order"), [(1, "3 1 2 0"), (2, "2 1 3 0")])
def test_a_heading_sorts_numbers_and_leaves_no_data_last(open_page, clicks, order):
    values = [NAN, 0.5, 0.0625, 1.0]
    classes = [ClassRow(f"class{i}", n_known=i, scores={"s": v}) for i, v in enumerate(values)]
    page = open_page(Report("sorted", classes=classes))
    for _ in range(clicks):
        page.click("#classes th:nth-child(3) button")
    rows = page.eval_on_selector_all("#classes tbody th", "all => all.map(e => e.textContent)")
    assert " ".join(row[-1] for row in rows) == order
    wanted = "descending" if clicks == 1 else "ascending"
    assert page.get_attribute("#classes th:nth-child(3)", "aria-sort") == wanted


def test_examples_lead_to_their_recording(open_page, full_report):
    page = open_page(full_report)
    page.click("#changes summary")
    page.click("#changes [data-show]")
    assert page.inner_text("#clip-title") == "rec0001"


# ------------------------------------------------------------------------------------------ many


@pytest.mark.slow
def test_two_thousand_recordings_stay_quick(open_page, make_viewer):
    picture = make_viewer(1).clips[0].media()
    viewer = make_viewer(2000)
    clips = [dataclasses.replace(clip, media=lambda: picture) for clip in viewer.clips]
    report = Report("many", viewer=dataclasses.replace(viewer, clips=clips))
    page = open_page(report, max_inline=1_000_000)
    began = time.perf_counter()
    page.reload()
    load_s = time.perf_counter() - began
    ready = page.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart")
    n = int(re.match(r"\d+", page.inner_text("#count"))[0])
    assert n == sum(len(clip.items) for clip in clips)
    # Only what is in view is in the document.
    assert page.eval_on_selector_all(".item", "all => all.length") < 40
    filtered = page.evaluate(timed("by-sort", "disagreement"))
    scrolled = page.evaluate(
        """() => { const t = performance.now(); const e = document.getElementById("items");
          for (let i = 0; i < 100; i++) {
            e.scrollTop = i * 2000;
            e.dispatchEvent(new Event("scroll"));
          }
          e.getBoundingClientRect(); return (performance.now() - t) / 100; }"""
    )
    page.focus("#items")
    began = time.perf_counter()
    for _ in range(20):
        page.keyboard.press("j")
    step = (time.perf_counter() - began) / 20 * 1000
    began = time.perf_counter()
    for _ in range(20):
        page.keyboard.press("r")
    verdict = (time.perf_counter() - began) / 20 * 1000
    print(
        f"\n{n} items of 2,000 recordings: load {ready:.0f} ms ({load_s:.2f} s with the driver), "
        f"sort {filtered:.0f} ms, scroll {scrolled:.1f} ms, next {step:.0f} ms, "
        f"verdict {verdict:.0f} ms"
    )
    assert ready < 5000
    assert filtered < 500
    assert scrolled < 50
    assert step < 250
    assert verdict < 400


def timed(control: str, value: str) -> str:
    return f"""() => {{ const e = document.getElementById("{control}"); const t = performance.now();
      e.value = "{value}"; e.dispatchEvent(new Event("input")); return performance.now() - t; }}"""


def contrast(page, selector: str) -> float:
    """Of the first such element's text against what lies behind it (WCAG 2)."""
    ink, ground = page.eval_on_selector(
        selector,
        """e => {
          const own = getComputedStyle(e).color;
          let at = e;
          const clear = (c) => c === "transparent" || /, 0\\)$/.test(c);
          while (at.parentElement && clear(getComputedStyle(at).backgroundColor)) {
            at = at.parentElement;
          }
          const canvas = new OffscreenCanvas(1, 1).getContext("2d");
          const pixel = (colour) => {
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
          };
          return [pixel(own), pixel(getComputedStyle(at).backgroundColor)];
        }""",
    )
    light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(rgb) -> float:
    share = np.array(rgb) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_an_empty_clip_list_and_a_clip_without_items_do_no_harm(open_page, make_viewer):
    viewer = make_viewer(1)
    empty = Clip("quiet", "test", 0.0, 6.0, media=Media)
    page = open_page(Report("quiet", viewer=dataclasses.replace(viewer, clips=[empty])))
    assert page.inner_text("#count") == "0 of 0 shown"
    assert page.is_disabled('[data-verdict="right"]')
