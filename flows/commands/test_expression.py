"""`pqa test-expression`: counts to one table of DE tests."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

from flows.arguments import read_options
from flows.commands.printing import print_json
from flows.commands.testing import stages_to_tests
from flows.dask_cluster import dask_client
from flows.options import TestExpressionOptions
from flows.records import Place
from storage.atomic import copy_or_remove


def run(arguments: Namespace) -> None:
    """Counts to one table of DE tests."""
    options = read_options(TestExpressionOptions, arguments)
    out: Path = arguments.out
    work = out.with_name(f".{out.name}.work")
    with dask_client(options.compute.dask, workers=options.compute.workers) as client:
        _, _, tests = stages_to_tests(Place(work, client, options.compute.force), arguments.screen, options)
    copy_or_remove(tests.folder / "tests.parquet", out)
    shutil.rmtree(work)
    if arguments.json:
        print_json({"out": str(out), "tests": tests.rows["tests.parquet"]})
    else:
        print(f"{tests.rows['tests.parquet']:,} tests in {out}")
