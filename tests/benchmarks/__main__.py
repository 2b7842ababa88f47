"""``make bench``: contenders side by side in one run, the medians and ratios written to RESULTS.md."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import anndata

from tests.benchmarks.data import CONTROL, Size, make_counts

RESULTS = Path(__file__).with_name("RESULTS.md")
PACKAGES = ("numba", "numpy", "scipy", "zarr", "anndata", "scanpy", "illico", "pdex")
#: What part of the work a contender does; its time is multiplied by this before it is compared.
PARTS = {"pdex, 1/10 of genes": 10, "scanpy, 1/10 of genes and perturbations": 100}
#: Too slow to be run more than once.
ONCE = set(PARTS)
IN_MEMORY = (
    "ours, in memory",
    "illico rust, csr",
    "illico rust, csc",
    "illico numba, csr",
    "pdex, 1/10 of genes",
    "scanpy, 1/10 of genes and perturbations",
)
ON_DISK = (
    "h5py, read once",
    "ours, ingest",
    "anndata zarr",
    "ours, store to Parquet",
    "ours, pseudobulk",
    "scanpy.get.aggregate",
)


def main() -> None:
    """Run what was asked for and write the table."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/pqa-bench"))
    parser.add_argument("--controls", type=int, nargs="+", default=[3_000, 10_000])
    parser.add_argument("--only", nargs="*", default=[*IN_MEMORY, *ON_DISK])
    arguments = parser.parse_args()
    lines = [*_heading(arguments.runs)]
    for controls in arguments.controls:
        size = Size(controls=controls)
        screen = make_counts(arguments.folder, size)
        _small_screen(screen)
        figures = {name: _median(name, screen, arguments.runs) for name in arguments.only}
        lines += _table(size, figures)
        RESULTS.write_text("\n".join(lines) + "\n")
    print(RESULTS.read_text())


def _median(name: str, screen: Path, runs: int) -> dict[str, float]:
    """Medians over processes of their own."""
    results = []
    for _ in range(1 if name in ONCE else runs):
        command = [sys.executable, "-m", "tests.benchmarks.contenders", name, str(screen), str(screen.parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return {}
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name}: {results[-1]}", file=sys.stderr, flush=True)
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def _small_screen(screen: Path) -> None:
    """A piece of the screen on which ingest compiles before it is measured."""
    target = screen.with_name("warm.h5ad")
    if not target.is_file():
        whole = anndata.read_h5ad(screen, backed="r")
        names = whole.obs["perturbation"]
        rows = (names == CONTROL) | (names == names.cat.categories[0])
        whole[rows.to_numpy().nonzero()[0][:500]].to_memory().write_h5ad(target)


def _table(size: Size, figures: dict[str, dict[str, float]]) -> list[str]:
    ours = figures.get("ours, in memory", {}).get("cpu_s")
    lines = [
        "",
        f"## {size.cells:,} cells x {size.genes:,} genes x {size.perturbations} perturbations, "
        f"{size.controls:,} controls",
        "",
        "| | CPU s | x ours in memory | wall s | peak MB | files | MB on disk |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in figures.items():
        if not row:
            lines.append(f"| {name} | failed | | | | | |")
            continue
        cpu = row["cpu_s"] * PARTS.get(name, 1)
        ratio = f"{cpu / ours:.1f}" if ours and name in IN_MEMORY else ""
        part = f" (part measured: {row['cpu_s']:.1f})" if name in PARTS else ""
        disk = [f"{row[key]:,.0f}" if key in row else "" for key in ("files", "store_mb")]
        lines.append(
            f"| {name} | {cpu:.1f}{part} | {ratio} | {row['wall_s']:.1f} | {row['peak_mb']:,.0f} "
            f"| {disk[0]} | {disk[1]} |"
        )
    return lines


def _heading(runs: int) -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    how_often = f"Median of {runs} runs" if runs > 1 else "One run only"
    return [
        "# Measured by `make bench`",
        "",
        f"{date.today()}, {cpu}, 2 threads, Python {platform.python_version()}; "
        + ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
        + ".",
        "",
        f"{how_often}, each contender in a process of its own, compilation left out; scanpy and pdex (where "
        "listed) once, on a part, multiplied up. CPU seconds of the process while it works; peak memory "
        "includes the input where it is in memory. Compare ratios within one run; machines differ and drift.",
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
