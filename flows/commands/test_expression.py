"""`pqa test-expression`: counts to one table of DE tests."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pandas as pd

from flows.arguments import read_options
from flows.commands.counts_to_tests import check_first, stages_to_tests
from flows.commands.outputs import held, lock_elsewhere, refuse, table_problems
from flows.commands.printing import print_json
from flows.dask_cluster import dask_client
from flows.options import TestExpressionOptions
from flows.records import Place
from storage.atomic import copy_or_remove, remove
from storage.manifest import StageRecord
from storage.tables import read_frame

#: Perturbations left out that are named on the terminal.
MOST_LISTED = 10


def run(arguments: Namespace) -> None:
    """Counts to one table of DE tests."""
    options = read_options(TestExpressionOptions, arguments)
    out: Path = arguments.out
    problems = table_problems(out)
    if options.expression.also_test:
        problems.append("--also-test: one table is made here; `pqa label` shows tests side by side")
    refuse(problems)
    check_first(arguments.screen, options)
    work, compute = out.with_name(f".{out.name}.work"), options.compute
    with held(out, lock_elsewhere(out)), dask_client(compute.dask, workers=compute.workers) as client:
        place = Place(work, client, compute.force)
        _, judged, tests = stages_to_tests(place, arguments.screen, options)
        copy_or_remove(tests.folder / "tests.parquet", out)
        left_out = _left_out(judged, tests)
        remove(work)
    n_tests, n_tested = tests.rows["tests.parquet"], judged.rows["perturbations"] - len(left_out)
    if arguments.json:
        print_json({"out": str(out), "tests": n_tests, "perturbations": n_tested, "left_out": left_out})
        return
    print(f"{n_tests:,} tests of {n_tested:,} perturbations in {out}")
    if left_out:
        print(f"{len(left_out):,} of {judged.rows['perturbations']:,} perturbations left out:")
        print("".join(f"  {name}: {why}\n" for name, why in list(left_out.items())[:MOST_LISTED]), end="")
    if len(left_out) > MOST_LISTED:
        print(f"  and {len(left_out) - MOST_LISTED:,} more, all of them with --json")


def _left_out(judged: StageRecord, tests: StageRecord) -> dict[str, str]:
    """Why each perturbation without tests has none, by name."""
    table = read_frame(judged.folder / "perturbations.parquet")
    excluded = table.loc[table["status"] == "excluded", ["perturbation", "reason"]]
    reasons = pd.concat([excluded, read_frame(tests.folder / "excluded.parquet")])
    return dict(sorted(zip(reasons["perturbation"], reasons["reason"], strict=True)))
