"""One self-contained HTML page: facts, sections, figures and tables, with no script and nothing to load."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from storage.atomic import atomic_path
from tasks.report import drawing

MOST_TABLE_ROWS = 300
NOTHING = "-"


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes
    ----------
    title
        Heading, also the entry in the navigation: keep it short.
    text
        Paragraphs, separated by empty lines.
    figures
        Pairs of (caption, figure). The first line of a caption is its heading, the rest says how to read it.
    tables
        Triples of (caption, frame, notes), in the order of their rows; columns are shown under their names.
    """

    title: str
    text: str = ""
    figures: Sequence[tuple[str, Figure]] = ()
    tables: Sequence[tuple[str, pd.DataFrame, str]] = ()


@dataclass(frozen=True)
class Report:
    """What :func:`write_report` writes.

    Attributes
    ----------
    title
        Heading of the page.
    subtitle
        Lines below it.
    facts
        Pairs of (label, value) for the summary; numbers are formatted.
    sections
        In the order shown.
    """

    title: str
    subtitle: Sequence[str] = ()
    facts: Sequence[tuple[str, object]] = ()
    sections: Sequence[Section] = ()


def write_report(path: Path | str, report: Report) -> Path:
    """Write ``report`` as one HTML file, atomically.

    The same content gives the same bytes: the page holds no time, no path and no random id.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    path = Path(path)
    html = report_html(report)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")
    return path


def report_html(report: Report) -> str:
    """The page of ``report`` as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    anchors = _anchors([section.title for section in report.sections])
    return environment.get_template("report.html.j2").render(
        title=report.title,
        subtitle=list(report.subtitle),
        facts=[(label, format_value(value)) for label, value in report.facts],
        sections=[
            _section_parts(section, anchor) for section, anchor in zip(report.sections, anchors, strict=True)
        ],
    )


def format_value(value: object) -> str:
    """A table cell: three digits for numbers, thousands separated, ``-`` where there is no value."""
    if value is None or value is pd.NA or value is pd.NaT:
        return NOTHING
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, (float, np.floating)):
        return _format_number(float(value))
    return str(value)


def _format_number(value: float) -> str:
    size = abs(value)
    if np.isnan(value):
        return NOTHING
    if np.isinf(value) or value == 0:
        return f"{value:g}"
    if size < 0.0005:
        return f"{value:.1e}"
    decimals = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:,.{decimals}f}"


def _section_parts(section: Section, anchor: str) -> Mapping[str, object]:
    figures = []
    for number, (caption, figure) in enumerate(section.figures, start=1):
        heading, _, reading = caption.partition("\n")
        svg = drawing.svg_text(figure, f"{anchor}-{number}")
        figures.append({"heading": heading, "reading": reading.strip(), "svg": Markup(svg)})
    return {
        "anchor": anchor,
        "title": section.title,
        "paragraphs": [part.strip() for part in section.text.split("\n\n") if part.strip()],
        "figures": figures,
        "tables": [_table_parts(*table) for table in section.tables],
    }


def _table_parts(caption: str, frame: pd.DataFrame, notes: str) -> Mapping[str, object]:
    shown = frame.head(MOST_TABLE_ROWS)
    if len(frame) > len(shown):
        notes = f"{notes} The first {len(shown):,} of {len(frame):,} rows are shown.".strip()
    columns = [shown.iloc[:, place].tolist() for place in range(shown.shape[1])]
    numeric = [_all_numbers(values) for values in columns]
    rows = [[format_value(value) for value in row] for row in zip(*columns, strict=True)]
    return {
        "caption": caption,
        "columns": list(zip(map(str, frame.columns), numeric, strict=True)),
        "rows": [list(zip(row, numeric, strict=True)) for row in rows],
        "notes": notes,
    }


def _all_numbers(values: list) -> bool:
    return all(
        isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        for value in values
        if value is not None and value is not pd.NA
    )


def _anchors(titles: Sequence[str]) -> list[str]:
    """One id for each section, readable and unlike the others."""
    anchors: list[str] = []
    for place, title in enumerate(titles, start=1):
        words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        anchors.append(f"s{place}-{words}".rstrip("-"))
    return anchors
