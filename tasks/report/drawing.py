"""What all figures share: colours, axes, names, and the same SVG text or PNG bytes for the same figure.

Figures are made with matplotlib's object interface: nothing is registered anywhere and no backend is chosen.
"""

from __future__ import annotations

import io
import re
import threading
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from storage.atomic import atomic_path

# Colours told apart with every common form of colour blindness (Okabe & Ito 2008).
SKY, GREEN, BLUE, VERMILLION = "#56B4E9", "#009E73", "#0072B2", "#D55E00"
BLACK, GREY, LIGHT = "#222222", "#8A8A8A", "#D8D8D8"

PAGE_WIDTH = 9.6
RASTER_POINTS = 1500

# Pixels an inch of a picture on its own: twice what its place on a page has, for sharp screens.
PICTURE_DPI = 140

# The settings of output exist only as process-wide values, and tasks may run in threads.
_drawing_lock = threading.Lock()


def new_figure(
    height: float, *, rows: int = 1, columns: int = 1, width: float = PAGE_WIDTH, **options
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, shape (rows, columns).

    Sizes are in inches; ``options`` go to ``Figure.subplots``.
    """
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150, facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(GREY)
        ax.tick_params(labelsize=8, color=GREY, labelcolor=BLACK)
        ax.set_axisbelow(True)
    return figure, axes


def label_axes(ax: Axes, *, x: str, y: str = "", title: str = "") -> None:
    """Set axis labels and a left-aligned title, taking ``$`` and ``_`` in names as they are."""
    ax.set_xlabel(x, fontsize=9, color=BLACK, parse_math=False)
    ax.set_ylabel(y, fontsize=9, color=BLACK, parse_math=False)
    ax.set_title(title, fontsize=9.5, loc="left", color=BLACK, parse_math=False)


def finish_grid(axes: np.ndarray, panels: int) -> None:
    """Hide unused panels of a grid, and label axes only at its left and lower edge."""
    columns = axes.shape[1]
    for place, ax in enumerate(axes.flat):
        ax.set_visible(place < panels)
        if place % columns:
            ax.set_ylabel("")
        lowest = place + columns >= panels
        ax.tick_params(labelbottom=lowest)
        if not lowest:
            ax.set_xlabel("")


def name_rows(ax: Axes, names: list[str]) -> None:
    """Name the rows of a horizontal chart, the first on top."""
    ax.set_yticks(range(len(names)), [short_name(name) for name in names], parse_math=False, fontsize=8)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def short_name(name: object, most: int = 34) -> str:
    """A name cut to ``most`` characters."""
    name = str(name)
    return name if len(name) <= most else name[: most - 1] + "…"


def say(ax: Axes, text: str) -> None:
    """Write a sentence into a panel that has nothing to show."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize=9, color=GREY)
    ax.set_xticks([])
    ax.set_yticks([])


def count_axis(ax: Axes, axis: str, values) -> None:
    """Make an axis of counts logarithmic, with 0 where it occurs, and write 1,000 and not 10³."""
    low, high = float(np.min(values)), float(np.max(values))
    steps = (1, 2, 5) if high < 100 * max(low, 1) else (1, 3)
    ticks = [0, *(step * 10**power for power in range(10) for step in steps)]
    if low >= 1:
        scale, limits = {"value": "log"}, (0.8 * low, 1.25 * high)
    else:
        scale, limits = {"value": "symlog", "linthresh": 1}, (-0.3, 1.25 * max(high, 1))
    ax.set(**{f"{axis}lim": limits})
    getattr(ax, f"set_{axis}scale")(**scale)
    chosen = getattr(ax, f"{axis}axis")
    chosen.set_ticks([tick for tick in ticks if limits[0] <= tick <= limits[1]])
    chosen.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    chosen.set_minor_locator(NullLocator())


def key(place: Axes | Figure, **options) -> None:
    """A legend without a frame, in one panel or for a whole figure."""
    options = {"fontsize": 8, "frameon": False, "handletextpad": 0.5, "borderaxespad": 0.2} | options
    place.legend(**options)


def points(ax: Axes, x, y, **options) -> None:
    """A scatter that is drawn as pixels when there are many points, to keep the page small."""
    options = {"s": 8, "linewidths": 0, "rasterized": len(x) > RASTER_POINTS} | options
    ax.scatter(x, y, **options)


def svg_text(figure: Figure, prefix: str) -> str:
    """The figure as an ``<svg>`` element for use inside a page.

    Parameters
    ----------
    figure
        Left as it is, but for its layout, which is worked out.
    prefix
        Put before every id, so that the figures of one page cannot refer to each other's parts.

    Returns
    -------
    str
        The same text for the same figure, without the namespaces and the metadata a page does not need.
    """
    settings = {"svg.hashsalt": "pqa", "svg.fonttype": "none"}
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    buffer = io.StringIO()
    with _drawing_lock, matplotlib.rc_context(settings):
        # Laid out once and then kept: a second layout starts from the first and would move parts by a hair.
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href=", "href=")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    return re.sub(r"url\(#", f"url(#{prefix}-", text)


def write_png(figure: Figure, path: Path | str) -> Path:
    """Write the figure as a picture of its own, for pages that take no SVG; atomically.

    The same figure gives the same bytes: the file names no version of a library. One that is there stays.

    Raises
    ------
    StorageError
        If the file cannot be written.
    """
    path, buffer = Path(path), io.BytesIO()
    edge = {"bbox_inches": "tight", "pad_inches": 0.15}
    with _drawing_lock:
        figure.savefig(buffer, format="png", dpi=PICTURE_DPI, metadata={"Software": None}, **edge)
    if not path.is_file() or path.read_bytes() != buffer.getvalue():
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return path
