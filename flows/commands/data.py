"""`pqa data`: public data by name."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from flows.commands.printing import print_json
from storage.datasets import DATASETS
from storage.downloads import get_dataset


def run(arguments: Namespace) -> None:
    """List or fetch public data."""
    if arguments.action == "get":
        path = get_dataset(arguments.name, arguments.to, mirror=arguments.mirror)
        print_json({"path": str(path)}) if arguments.json else print(path)
        return
    if arguments.json:
        print_json([asdict(dataset) for dataset in DATASETS.values()])
        return
    for dataset in DATASETS.values():
        size = f"{dataset.size_bytes / 1e9:.1f} GB" if dataset.size_bytes else "size unknown"
        cells = f", {dataset.cells:,} cells x {dataset.genes:,} genes" if dataset.cells else ""
        print(f"{dataset.name:<16} {dataset.title} ({size}{cells})")
