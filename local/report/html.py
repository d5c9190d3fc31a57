"""The page itself: one file that opens from disk, without a network, in either colour scheme."""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template

from local.io import files
from local.report.elements import definitions, escape
from local.report.page_records import Report
from local.report.page_sections import Section, sections_of
from local.report.theme import css_variables
from local.report.viewer import place_media

_HERE = Path(__file__).parent
# In the order in which they need each other; each says what it does.
_SCRIPTS = ("base", "scheme", "tables", "verdicts", "player", "stage", "list", "viewer")
# Pictures and sounds of more bytes than this lie in a folder beside the page.
MAX_INLINE_BYTES = 20_000_000
_OURS = re.compile(r"c\d{5}\.(?:png|mp3)")


def write_report(
    path: Path | str, report: Report, max_inline: int = MAX_INLINE_BYTES
) -> list[Path]:
    """Write the page to `path`, and beside it a folder of its name where it would be too large.

    Returns
    -------
    All files that belong to the page, itself first. Files of an older page are taken away.
    """
    path = Path(path)
    folder = path.with_suffix("")
    addresses = place_media(report.viewer, folder, max_inline) if report.viewer else []
    files.write_text(path, _page(report, addresses))
    named = {Path(address).name for pair in addresses for address in pair}
    for stale in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _OURS.fullmatch(stale.name) and stale.name not in named:
            stale.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    beside = [folder / name for name in sorted(named) if _OURS.fullmatch(name)]
    return [path, *beside]


def render(report: Report) -> str:
    """The whole page as text: styles, scripts, pictures and sounds are inside it."""
    return _page(report, place_media(report.viewer, None, 0) if report.viewer else [])


def _page(report: Report, addresses: Sequence[tuple[str, str]]) -> str:
    contents = {section: section.content(report) for section in sections_of(report, addresses)}
    shown = {section: content for section, content in contents.items() if content}
    script = "".join(_read(f"scripts/{name}.js") for name in _SCRIPTS)
    beside = any(address and not address.startswith("data:") for p in addresses for address in p)
    return Template(_read("template.html")).substitute(
        title=escape(report.title),
        facts=definitions(report.facts, "facts") if report.facts else "",
        links="".join(
            f'<li><a href="#{section.anchor}">{escape(section.title)}</a></li>' for section in shown
        ),
        sections="".join(_section(section, content) for section, content in shown.items()),
        style=css_variables(":root") + _read("style.css") + _read("viewer.css"),
        script=script,
        script_hash=_source_hash(script),
        # Files of the page's own folder, whether it is opened from disk or from a server.
        beside=" 'self' file:" if beside else "",
    )


def _section(section: Section, content: str) -> str:
    title = f'<h2 id="{section.anchor}-title">{escape(section.title)}</h2>'
    return (
        f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">{title}\n'
        f"{content}</section>\n"
    )


def _source_hash(script: str) -> str:
    """The hash by which the page's own policy admits this script and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
