"""``make bench``: contenders side by side in one run, their medians and ratios in RESULTS.md.

``python -m tests.benchmarks SECTION ...`` measures some sections again and leaves the others as they are.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from tests.benchmarks import in_memory, on_disk, scaling
from tests.benchmarks.data import Size, make_counts, make_packed
from tests.benchmarks.measure import THREADS, Figures, medians

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("numba", "numpy", "scipy", "zarr", "zarrs", "h5py", "anndata", "scanpy", "illico", "pdex")
CONTROLS = (3_000, 10_000)
GROWTH = (20_000, 60_000, 150_000, 300_000)
HEADING = """# Measured by `make bench`

Each contender runs in a process of its own, compilation left out. CPU seconds are those of the process, all
threads, while it works; peak memory includes what it was given in memory. Compare ratios within a section:
machines differ, and this one is shared. Peers that take minutes do a part of the work; the part is in their
name and their time is multiplied up. They, and illico's slower ways, are run once. Every section says when
and with what it was measured.
"""


def main() -> None:
    """Measure what was asked for and write it down."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="SECTION",
        # argparse looks an empty list up among the choices too.
        choices=[[], *SECTIONS],
        default=list(SECTIONS),
        help=f"of {', '.join(SECTIONS)} (default: all)",
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of which the median counts (default: 5)")
    parser.add_argument(
        "--folder", type=Path, default=Path("/tmp/pqa-bench"), help="where the inputs are kept"
    )
    parser.add_argument("--controls", type=int, nargs="+", default=CONTROLS, help="control cells (rank-sums)")
    arguments = parser.parse_args()
    for name in arguments.sections or SECTIONS:
        title, measure = SECTIONS[name]
        _write_section(title, [_how(arguments.runs), "", *measure(arguments)])
    print(RESULTS.read_text())


def rank_sums(arguments: argparse.Namespace) -> list[str]:
    """Tests in memory, for both numbers of controls and both kinds of values; slow peers with the first."""
    lines = []
    for controls in arguments.controls:
        size = Size(controls=controls)
        screen = make_counts(arguments.folder, size)
        for values in ("counts", "normalised"):
            names = [
                name
                for name in in_memory.CONTENDERS
                if (name, values) != ("ours, from counts", "counts")
                and (name not in in_memory.ONCE or controls == arguments.controls[0])
            ]
            rows = {}
            for name in names:
                runs = 1 if name in in_memory.ONCE else arguments.runs
                rows[name] = medians("in_memory", name, values, str(screen), runs=runs)
            lines += [f"**{size.title}, {values}**", "", *_compared(rows), ""]
    return lines[:-1]


def _compared(rows: dict[str, Figures]) -> list[str]:
    lines = ["| | CPU s | times ours | wall s | peak MB |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        if not row:
            lines.append(f"| {name} | failed | | | |")
            continue
        factor = in_memory.CONTENDERS[name][1]
        cpu, wall = row["cpu_s"] * factor, row["wall_s"] * factor
        ratio = f"{cpu / rows['ours']['cpu_s']:.1f}" if rows.get("ours") else ""
        lines.append(f"| {name} | {cpu:.1f} | {ratio} | {wall:.1f} | {row['peak_mb']:,.0f} |")
    return lines


def files(arguments: argparse.Namespace) -> list[str]:
    """Ingest, tests and sums from files: CSR, CSR compressed with gzip, and dense."""
    folder, runs = arguments.folder, arguments.runs
    size = Size()
    screen, dense = make_counts(folder, size), make_counts(folder, size, dense=True)
    packed = make_packed(screen)
    rows = {name: medians("on_disk", name, str(screen), runs=runs) for name in on_disk.CONTENDERS}
    rows |= {
        f"{name}, {kind}": medians("on_disk", name, str(file), runs=runs)
        for kind, file in (("dense float32", dense), ("CSR with gzip", packed))
        for name in on_disk.OF_EVERY_FILE
    }
    lines = [f"{size.title}; h5ad, CSR without compression in the page cache where nothing else is said.", ""]
    lines += ["| | CPU s | wall s | peak MB | files | MB on disk |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        if not row:
            lines.append(f"| {name} | failed | | | | |")
            continue
        disk = [f"{row[key]:,.0f}" if key in row else "" for key in ("files", "store_mb")]
        lines.append(
            f"| {name} | {row['cpu_s']:.1f} | {row['wall_s']:.1f} | {row['peak_mb']:,.0f} "
            f"| {disk[0]} | {disk[1]} |"
        )
    dense.unlink()
    packed.unlink()
    return lines


def growth(arguments: argparse.Namespace) -> list[str]:
    """Ingest and tests from small to large, once each; inputs are removed."""
    lines = [
        "8,500 genes, 2,000 perturbations, a twentieth of the cells controls; once each. ns = CPU time a "
        "non-zero count.",
        "",
        "| cells | non-zeros | ingest CPU s | ns | peak MB | tests CPU s | ns | peak MB | store MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    sizes, ingested, tested = [], [], []
    for cells in GROWTH:
        screen = make_counts(arguments.folder, Size(cells, 8_500, 2_000, cells // 20))
        ingest = medians("on_disk", "ours, ingest", str(screen), runs=1)
        screen.unlink()
        tests = medians("on_disk", "ours, store to Parquet", str(screen), runs=1)
        values = tests["values"]
        lines.append(
            f"| {cells:,} | {values / 1e6:,.0f} M "
            f"| {ingest['cpu_s']:.1f} | {ingest['cpu_s'] / values * 1e9:.0f} | {ingest['peak_mb']:,.0f} "
            f"| {tests['cpu_s']:.1f} | {tests['cpu_s'] / values * 1e9:.0f} | {tests['peak_mb']:,.0f} "
            f"| {ingest['store_mb']:,.0f} |"
        )
        sizes.append(values)
        ingested.append(ingest["cpu_s"])
        tested.append(tests["cpu_s"])
        shutil.rmtree(screen.parent)
    return [*lines, "", *_at_genome_scale(sizes[-1] / GROWTH[-1] / 8_500, sizes, ingested, tested)]


def _at_genome_scale(
    density: float, sizes: list[float], ingested: list[float], tested: list[float]
) -> list[str]:
    """What straight lines through the figures say of the genome-wide K562 screen."""
    values, tests = 2_000_000 * 8_248 * density, (10_000 * 8_248) / (2_000 * 8_500)
    (in_each, in_once), (test_each, test_once) = (
        np.polyfit(sizes, seconds, 1) for seconds in (ingested, tested)
    )
    minutes = (in_once + in_each * values) / 60, (test_once * tests + test_each * values) / 60
    return [
        f"Straight lines through these figures: ingest costs {in_each * 1e9:.0f} ns a non-zero count, "
        f"tests {test_each * 1e9:.0f} ns and {test_once / 17:.1f} s a million rows of the table. "
        "At the size of the genome-wide K562 screen (2 million cells x 8,248 genes, "
        f"{values / 1e9:.1f} billion counts at this density, 10,000 perturbations) that would be "
        f"{minutes[0]:.0f} CPU minutes of ingest and "
        f"{minutes[1]:.0f} of tests.",
    ]


def workers(arguments: argparse.Namespace) -> list[str]:
    """Cold start, and what a second Dask worker brings; of a store that `files` has written."""
    screen = make_counts(arguments.folder, Size())
    rows = {name: medians("scaling", name, str(screen), runs=arguments.runs) for name in scaling.CONTENDERS}
    one, two = (rows[name] for name in ("1 worker", "2 workers"))
    return [
        f"- A fresh worker process has tested its first two genes after {rows['cold start']['wall_s']:.1f} s "
        "(imports, store opened, compiled kernels from their cache on disk; its groups of cells are given, "
        "as Dask gives them).",
        f"- Tests of all genes on one Dask worker process of one thread: {one['tested_s']:.1f} s, on two: "
        f"{two['tested_s']:.1f} s; {one['tested_s'] / two['tested_s']:.2f} times as fast.",
        f"- The same with the one Parquet table, which one process writes: {one['wall_s']:.1f} s and "
        f"{two['wall_s']:.1f} s; {one['wall_s'] / two['wall_s']:.2f} times as fast.",
    ]


def graph_attention(arguments: argparse.Namespace) -> list[str]:
    """Ours and the whole graph for every batch, on the real k562 tables."""
    # torch takes seconds to import: the other sections do without it.
    from tests.benchmarks.gat_epochs import section

    return section(arguments)


#: Sections by name: title and what measures them.
SECTIONS: dict[str, tuple[str, Callable[[argparse.Namespace], list[str]]]] = {
    "rank-sums": ("Rank-sum tests in memory", rank_sums),
    "files": ("From file to file", files),
    "growth": ("Growth", growth),
    "workers": ("Start and spread", workers),
    "gat": ("An epoch of the graph attention network", graph_attention),
}


def _write_section(title: str, lines: list[str]) -> None:
    """Put a section in its place, or at the end."""
    text = RESULTS.read_text() if RESULTS.is_file() else ""
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL))
    sections[title] = "\n" + "\n".join(lines) + "\n\n"
    body = "".join(f"## {name}\n{content}" for name, content in sections.items())
    RESULTS.write_text(f"{HEADING}\n{body.rstrip()}\n")


def _how(runs: int) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    often = f"median of {runs} runs" if runs > 1 else "one run"
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return (
        f"{date.today()}, {often}, {cpu}, {THREADS} threads, Python {platform.python_version()}, {packages}."
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
