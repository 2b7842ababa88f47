"""The stage that holds several tests of one screen against each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import storage.expression_tables
import tasks.expression
from flows.label_stages import NothingToTestError, tests_stage
from flows.options import ExpressionOptions, LabelOptions, QualityOptions
from flows.progress import Progress
from flows.records import Place, SideBySide
from flows.rule_stages import call_rule
from storage.expression_tables import read_by_perturbation
from storage.manifest import Stage, StageRecord, file_digest, run_stage
from storage.tables import read_frame, read_recipe, write_table
from tasks.expression.calibration import check_against_truth, null_summary
from tasks.expression.side_by_side import CALLED, NOT_TESTED, call_codes, null_quantiles, shared_calls

#: The tables of the stage, by what they are of.
SUMMARY, AGREEMENT, QUANTILES = "summary.parquet", "agreement.parquet", "null-quantiles.parquet"


def side_by_side(
    place: Place,
    screen: StageRecord,
    quality: StageRecord,
    tests: StageRecord,
    expression: ExpressionOptions,
    quality_options: QualityOptions,
    options: LabelOptions,
    truth: Path | None,
    progress: Progress,
    say: Callable[[str], None],
) -> SideBySide | None:
    """Do the other tests asked for, each a stage of its own, and compare; None where none is asked for.

    A test that can be done on no perturbation is reported, to ``say`` and in the record: the labels, which
    come from another test, are not lost with it.
    """
    others, impossible = {}, {}
    for other in expression.others():
        try:
            others[other.test] = tests_stage(place, screen, quality, other, quality_options, progress)
        except NothingToTestError as error:
            impossible[other.test] = "; ".join(error.problems)
            say(f"--also-test {other.test} is left out: {impossible[other.test]}")
    if not others and not impossible:
        return None
    compared = compare_tests_stage(place, {expression.test: tests} | others, options, truth)
    return SideBySide(others, compared, impossible)


def compare_tests_stage(
    place: Place, tests: dict[str, StageRecord], options: LabelOptions, truth: Path | None
) -> StageRecord:
    """Calls, calibration and agreement of tests of the same screen; the first is the one labels come from."""
    inputs = {f"{name} tests": record.content for name, record in tests.items()}
    inputs |= {"truth": file_digest(truth)} if truth else {}
    rule = call_rule(options)
    # The inputs are sorted where they are digested, and which test comes first matters.
    settings = rule | {"tests": list(tests)}
    code = (tasks.expression, storage.expression_tables, sys.modules[__name__])
    chosen = next(iter(tests.values()))
    stage = Stage("side-by-side", chosen.name, inputs, settings, code)

    def work(folder: Path) -> dict[str, int]:
        tables = {name: record.folder / "tests.parquet" for name, record in tests.items()}
        names = {name: [one for one, _ in read_by_perturbation(tables[name], ())] for name in tables}
        perturbations = sorted(set().union(*names.values()))
        # Every perturbation is tested on the same genes.
        genes = next(read_by_perturbation(tables[next(iter(tables))], ("gene",)))[1]["gene"].tolist()
        columns = ("gene", "log2_fold_change", "direction", "p_value", "p_adj")
        codes = {
            name: call_codes(read_by_perturbation(table, columns), perturbations, genes, **rule)
            for name, table in tables.items()
        }
        rows, quantiles = [], []
        for name, record in tests.items():
            made = codes[name]
            model = read_recipe(tables[name]).get("pseudobulk_model", "")
            row = {"test": name, "model": model, "perturbations": len(names[name])}
            row |= {"tests": int((made != NOT_TESTED).sum()), "de_calls": int((made == CALLED).sum())}
            null = record.folder / "null.parquet"
            if null.is_file():
                frame = read_frame(null)
                row |= null_summary(frame, **rule)
                quantiles.append(null_quantiles(frame).assign(test=name))
            if truth is not None:
                check = check_against_truth(
                    read_by_perturbation(tables[name], columns), read_frame(truth), **rule
                )
                row |= {"realised_fdr": check["false_discovery_rate"][0], "power": check["power"][0]}
            rows.append(row)
        write_table(folder / SUMMARY, pd.DataFrame(rows), settings)
        write_table(folder / AGREEMENT, shared_calls(codes), settings)
        if quantiles:
            write_table(folder / QUANTILES, pd.concat(quantiles, ignore_index=True), settings)
        return {f"DE calls by {row['test']}": row["de_calls"] for row in rows}

    return run_stage(place.workspace, stage, work, force=place.force)


def side_by_side_tables(
    record: StageRecord,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None]:
    """The finished stage's tables: a row a test, a row an ordered pair of tests, null quantiles if any."""
    quantiles = record.folder / QUANTILES
    return (
        read_frame(record.folder / SUMMARY),
        read_frame(record.folder / AGREEMENT),
        read_frame(quantiles) if quantiles.is_file() else None,
    )


def side_by_side_metrics(compared: SideBySide | None) -> dict[str, float]:
    """Every test's figures by the names they have for the chosen test, with the test before them."""
    if compared is None:
        return {}
    summary = read_frame(compared.comparison.folder / SUMMARY)
    metrics = {}
    for row in summary.to_dict("records"):
        test = row.pop("test")
        del row["model"]
        metrics |= {f"{test}_{name}": float(value) for name, value in row.items()}
    shared = read_frame(compared.comparison.folder / AGREEMENT)
    return metrics | {
        f"{row.test}_calls_shared_with_{row.other}": float(row.share) for row in shared.itertuples()
    }
