"""Building blocks of the page: escaped text, tables that can be sorted, pictures in two widths.

Everything that reaches the page goes through `escape` or is a number formatted here.
"""

import base64
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.figure import Figure

from local.report.page_records import ClassRow, EventClassRow
from local.report.text import number, printable
from local.report.theme import to_svg

# Widths of the two drawings in CSS pixels, so that letters have the same size in both.
WIDE_PX = 900
NARROW_PX = 350
# Below this width of the window the narrow drawing is shown; style.css has the same number.
NARROW_BELOW_PX = 640


@dataclass(frozen=True)
class Column:
    """A column of a table.

    `kind` says how a cell is shown: ``text``; ``head`` (text that names its row); ``line`` (text
    that is not broken, at the right like numbers); ``number``;
    ``signed`` (a number with its sign); ``bar`` (a share in [0, 1] as number and bar); ``percent``
    (the same in percent).
    `digits` are decimals of numbers; `top` is the value of a full bar. A cell of a bar may be a
    number with the ends of its interval, (value, low, high), NaN where there is none.
    """

    title: str
    kind: Literal["text", "head", "line", "number", "signed", "bar", "percent"] = "text"
    digits: int = 3
    top: float = 1.0


def escape(text: object) -> str:
    """Text of others, safe as content and inside a quoted attribute."""
    return html.escape(printable(text), quote=True)


def table(
    columns: Sequence[Column], rows: Sequence[Sequence], caption: str, sortable: bool = False
) -> str:
    """A table in a region that scrolls sideways on its own; `caption` says what it holds."""
    heads = "".join(_head(column, sortable) for column in columns)
    body = "".join(
        "<tr>"
        + "".join(_cell(column, value) for column, value in zip(columns, row, strict=True))
        + "</tr>\n"
        for row in rows
    )
    kind = ' class="sortable"' if sortable else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table{kind}><caption>{escape(caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def picture(draw: Callable[[int], Figure], alt: str, caption: str = "") -> str:
    """A figure drawn once for wide and once for narrow windows, embedded as SVG.

    `draw` takes the width in CSS pixels.
    """
    wide, narrow = (_data_url(draw(width)) for width in (WIDE_PX, NARROW_PX))
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><picture><source media="(max-width: {NARROW_BELOW_PX}px)" srcset="{narrow}">'
        f'<img src="{wide}" alt="{escape(alt)}"></picture>{text}</figure>\n'
    )


def definitions(pairs: Sequence[tuple[str, str]], kind: str) -> str:
    """A list of names and values, both text."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs
    )
    return f'<dl class="{kind}">{items}</dl>\n'


def _data_url(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(to_svg(figure)).decode("ascii")


def _head(column: Column, sortable: bool) -> str:
    kind = ' class="n"' if column.kind not in ("text", "head") else ""
    if not sortable:
        return f'<th scope="col"{kind}>{escape(column.title)}</th>'
    return (
        f'<th scope="col"{kind} aria-sort="none"><button type="button">{escape(column.title)}'
        '<span class="arrow" aria-hidden="true"></span></button></th>'
    )


def _cell(column: Column, value: Any) -> str:
    if column.kind == "head":
        return f'<th scope="row">{escape(value)}</th>'
    if column.kind == "text":
        return f"<td>{escape(value)}</td>"
    if column.kind == "line":
        return f'<td class="n">{escape(value)}</td>'
    value, *ends = value if isinstance(value, tuple) else (value,)
    if value is None or not math.isfinite(value):
        return '<td class="n none">no data</td>'
    if column.kind == "number":
        return f'<td class="n" data-sort="{value}">{number(value, column.digits)}</td>'
    if column.kind == "signed":
        return f'<td class="n" data-sort="{value}">{value:+.{column.digits}f}</td>'
    text = number(value, column.digits)
    if column.kind == "percent":
        text = f"{100 * value:.{column.digits}f} %"
    reach = ""
    if ends and all(map(math.isfinite, ends)):
        low, high = (_share(column, end) for end in ends)
        text += f" <small>{ends[0]:.{column.digits - 1}f}–{ends[1]:.{column.digits - 1}f}</small>"
        reach = f'<b style="left:{low:.1f}%;width:{high - low:.1f}%"></b>'
    filled = f'<i style="width:{_share(column, value):.1f}%"></i>'
    bar = f'<span class="bar" aria-hidden="true">{filled}{reach}</span>'
    return f'<td class="n" data-sort="{value}">{text}{bar}</td>'


def _share(column: Column, value: float) -> float:
    """Percent of a full bar."""
    return min(max(value / column.top, 0.0), 1.0) * 100 if column.top > 0 else 0.0


def name_columns(rows: Sequence[ClassRow | EventClassRow]) -> list[Column]:
    """The class, and its name where any class has one that differs from its label."""
    named = any(row.name not in ("", row.label) for row in rows)
    return [Column("class", "head"), Column("name")] if named else [Column("class", "head")]


def names_of(row: ClassRow | EventClassRow, rows: Sequence[ClassRow | EventClassRow]) -> list[str]:
    """What a class has in `name_columns`."""
    return [row.label, row.name][: len(name_columns(rows))]
