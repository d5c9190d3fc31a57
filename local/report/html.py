"""The page itself: one file that opens from disk, without a network, in either colour scheme."""

import base64
import hashlib
from pathlib import Path
from string import Template

from local import files
from local.report.data import Report
from local.report.elements import definitions, escape
from local.report.sections import SECTIONS
from local.report.theme import css_variables

_HERE = Path(__file__).parent


def write_report(path: Path | str, report: Report) -> None:
    """Write the page atomically to `path`."""
    files.write_text(path, render(report))


def render(report: Report) -> str:
    """The whole page as text: styles, script and pictures are inside it."""
    contents = {section: section.content(report) for section in SECTIONS}
    shown = {section: content for section, content in contents.items() if content}
    script = _read("script.js")
    return Template(_read("template.html")).substitute(
        title=escape(report.title),
        facts=definitions(report.facts, "facts") if report.facts else "",
        links="".join(
            f'<li><a href="#{section.anchor}">{section.title}</a></li>' for section in shown
        ),
        sections="".join(
            f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">'
            f'<h2 id="{section.anchor}-title">{section.title}</h2>\n{content}</section>\n'
            for section, content in shown.items()
        ),
        style=css_variables(":root") + _read("style.css"),
        script=script,
        script_hash=_source_hash(script),
    )


def _source_hash(script: str) -> str:
    """The hash by which the page's own policy admits this script and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
