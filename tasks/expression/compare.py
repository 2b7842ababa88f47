"""DE tests of a whole screen: gene blocks on Dask, then one Parquet table with FDR and fold change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, Future

from storage.atomic import atomic_path
from storage.one_ahead import one_ahead
from storage.screens import Screen
from storage.tables import recipe_metadata
from tasks.expression.blocks import (
    FIELDS,
    FIELDS_WITHIN,
    MEAN_SCALE,
    BlockFile,
    BlockLedger,
    GeneSpan,
    Unit,
    compare_block,
    gene_spans,
    run_blocks,
    shared,
)
from tasks.expression.false_discovery import AdjustOverAll, adjust_within
from tasks.expression.gene_filters import NO_FILTERS, GeneFilters, count_block
from tasks.expression.groups import CellGroups
from tasks.expression.negative_binomial import REGRESSION_FIELDS, regression_block
from tasks.expression.paired import PAIRED_FIELDS, paired_block
from tasks.expression.profiles import PseudobulkDesign
from tasks.expression.results import (
    PairedResults,
    RankSumResults,
    RegressionResults,
    Results,
    StratifiedResults,
    Tested,
)

#: Perturbations handled at once when the table is put together.
ROWS_AT_ONCE = 32
#: Columns of few values are worth a dictionary; trying one on p-values costs time and gains nothing.
FEW = ["pert", "gene", "n_pert", "n_control", "n_control_effective", "mean_control", "direction"]
PARQUET = {"compression": "zstd", "use_dictionary": FEW}


def compare_expression(
    store: Path,
    groups: CellGroups,
    *,
    blocks_folder: Path,
    table: Path,
    client: Client,
    recipe: Mapping,
    pseudobulk: PseudobulkDesign | None = None,
    filters: GeneFilters = NO_FILTERS,
    fdr_scope: str = "within",
    normalise: str = "library",
    pseudocount: float = 0.1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, BlockLedger]:
    """Test every group against the controls for every gene; resumes at the first block not done.

    Parameters
    ----------
    store
        Screen store, readable by the workers.
    groups
        Compared by the rank-sum test, within ``groups.stratum`` where that is set.
    blocks_folder
        Where finished blocks lie, and are found again after an interruption.
    table
        Parquet to write: ``pert, gene, n_pert, n_control, mean_pert, mean_control, log2_fold_change,
        u_statistic, p_value, p_adj, log10_p_value, direction, n_control_effective``, sorted by perturbation,
        genes in the screen's order. Means are UMIs per 10,000 (``normalise="library"``) or plain UMIs, over
        all cells of the group; of the controls too, or, where the test compares within batches, over the
        batches' means with the group's share of cells in each. ``log2_fold_change = log2((mean_pert + c) /
        (mean_control + c))`` with ``c = pseudocount``, whatever the test; ``u_statistic`` is U of the
        rank-sum tests and t of the pseudobulk tests; ``direction`` is the side on which the test's own
        statistic lies: 1 more in the perturbed cells, -1 less, 0 neither. Pairs that were not tested have
        null there and in all p-values. ``n_control`` counts the controls compared with, and
        ``n_control_effective`` says what they are worth (`CellGroups.controls_compared`).
    pseudobulk
        Profiles to be compared in place of cells.
    filters
        Genes that fail are not tested, and not counted when p-values are adjusted.
    fdr_scope
        Benjamini-Hochberg ``within`` each perturbation, or over ``all`` tests of the table.

    Returns
    -------
    int, BlockLedger
        Number of rows, and the blocks requested, skipped and done.
    """
    screen = Screen(store)
    blocks = _Blocks(screen, blocks_folder, client=client, progress=progress)
    cells = shared(client, groups)
    common = {"groups": cells, "scale": MEAN_SCALE if normalise == "library" else 1.0}
    expressed = _ExpressedPairs(groups.sizes, screen.n_genes, filters, ())
    if filters.active:
        shape = (2, len(groups.sizes))
        expressed.counts = blocks.run(count_block, shape, kind="counts", arguments={"groups": cells})
    if pseudobulk is None:
        pooled = groups.stratum is None
        shape = (len(FIELDS if pooled else FIELDS_WITHIN), len(groups.sizes))
        done = blocks.run(compare_block, shape, arguments=common)
        results: Results = (RankSumResults if pooled else StratifiedResults)(done, groups.sizes)
    else:
        results = _pseudobulk(blocks, pseudobulk, expressed=expressed, common=common)
    _write_tests(
        table,
        results,
        groups=groups,
        genes=screen.genes,
        expressed=expressed,
        fdr_scope=fdr_scope,
        pseudocount=pseudocount,
        recipe=recipe,
    )
    return len(groups.names) * screen.n_genes, blocks.ledger


def untested(table: Path | str) -> int:
    """Rows of a table of tests that have no p-value, from the file's statistics alone."""
    metadata = pq.ParquetFile(table).metadata
    column = metadata.schema.names.index("p_value")
    parts = (metadata.row_group(index).column(column) for index in range(metadata.num_row_groups))
    return sum(part.statistics.null_count for part in parts)


class _Blocks:
    """Runs functions over a screen's gene blocks and keeps one ledger of them all."""

    def __init__(self, screen: Screen, folder: Path, *, client: Client, progress: Callable[[int, int], None]):
        self.client, self.ledger = client, BlockLedger(0, 0, 0)
        self._screen, self._folder, self._progress = screen, folder, progress

    def run(
        self,
        function: Callable[..., Path],
        shape: tuple[int, int],
        *,
        kind: str = "",
        arguments: Mapping[str, object],
        of_span: Callable[[GeneSpan], Mapping[str, object]] = lambda span: {},
    ) -> list[BlockFile]:
        """Run ``function(span, **arguments, **of_span(span))`` on every block.

        Gives the blocks' files, of an array ``(*shape, n_genes)`` each; ``kind`` names their folder.
        """
        units = [
            Unit(span, (*shape, len(span)), {**arguments, **of_span(span)})
            for span in gene_spans(self._screen, self._folder / kind)
        ]
        self.ledger += run_blocks(self.client, function, units, progress=self._progress)
        return [unit.file for unit in units]


@dataclass
class _ExpressedPairs:
    """Which pairs pass the filters; ``counts`` are the blocks of `count_block`, none without filters."""

    sizes: np.ndarray
    n_genes: int
    filters: GeneFilters
    counts: Sequence[BlockFile]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if not self.counts:
            return np.ones((len(rows), self.n_genes), bool)
        return np.concatenate(
            [self.filters.passed(counts, self.sizes, rows) for counts in self.counts], axis=1
        )


def _pseudobulk(
    blocks: _Blocks,
    design: PseudobulkDesign,
    *,
    expressed: _ExpressedPairs,
    common: Mapping[str, Future | float],
) -> Results:
    """Paired differences, and for the regression its own blocks, told the shift in composition they show.

    Parameters
    ----------
    common
        ``groups`` and ``scale``, as `paired_block` takes them.
    """
    n, least = len(expressed.sizes) - 1, {"min_umis": design.min_profile_umis}
    profiles = shared(blocks.client, design.paired)
    arguments = {**common, "profiles": profiles, **least}
    paired = PairedResults(blocks.run(paired_block, (len(PAIRED_FIELDS), n + 1), arguments=arguments))
    if design.regressed is None:
        return paired
    shifts, passed = np.zeros(n), np.zeros((n, expressed.n_genes), bool)
    for start in range(0, n, ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, n))
        passed[rows] = expressed(rows)
        shifts[rows] = paired.shifts(rows, passed[rows])
    profiles = shared(blocks.client, design.regressed)
    regressed = blocks.run(
        regression_block,
        (len(REGRESSION_FIELDS), n),
        kind="regressions",
        arguments={"profiles": profiles, "shifts": shifts, **least},
        of_span=lambda span: {"measured": passed[:, span.first : span.last]},
    )
    return RegressionResults(regressed, paired)


def _write_tests(
    table: Path,
    results: Results,
    *,
    groups: CellGroups,
    genes: np.ndarray,
    expressed: _ExpressedPairs,
    fdr_scope: str,
    pseudocount: float,
    recipe: Mapping,
) -> None:
    """Put the table together, a few perturbations at a time; parameters as of `compare_expression`."""
    n_control, effective = groups.controls_compared()
    schema = _schema().with_metadata(recipe_metadata(recipe))
    order = np.argsort(np.array(groups.names, dtype=object), kind="stable")

    def parts() -> Iterator[tuple[np.ndarray, Tested]]:
        for start in range(0, len(order), ROWS_AT_ONCE):
            rows = order[start : start + ROWS_AT_ONCE]
            yield rows, results.tests(rows, expressed(rows))

    adjust = adjust_within
    if fdr_scope == "all":
        adjust = AdjustOverAll((tests.p_value for _, tests in parts()), len(order) * len(genes))

    def tables() -> Iterator[pa.Table]:
        for rows, tests in parts():
            mean, mean_control = results.means(rows), results.control_means(rows)
            shape = mean.shape
            columns = [
                _repeated([groups.names[row] for row in rows], np.repeat(np.arange(shape[0]), shape[1])),
                _repeated(genes, np.tile(np.arange(shape[1]), shape[0])),
                np.repeat(groups.sizes[rows], shape[1]),
                np.repeat(n_control[rows], shape[1]),
                mean.ravel(),
                mean_control.ravel(),
                np.log2((mean + pseudocount) / (mean_control + pseudocount)).ravel(),
                tests.statistic.ravel(),
                tests.p_value.ravel(),
                adjust(tests.p_value).ravel(),
                tests.log10_p_value.ravel(),
                direction_of(tests.side.ravel()),
                np.repeat(effective[rows], shape[1]),
            ]
            # What was not tested is null in the file, not NaN.
            arrays = [pa.array(c, from_pandas=True) if isinstance(c, np.ndarray) else c for c in columns]
            yield pa.table(arrays, schema=schema)

    with atomic_path(table) as temporary, pq.ParquetWriter(temporary, schema, **PARQUET) as writer:
        for part in one_ahead(tables()):
            writer.write_table(part)


def direction_of(side: np.ndarray) -> pa.Array:
    """Sign of statistics of which 0 is no difference, int8; null where there is none."""
    return pa.array(np.sign(side), from_pandas=True).cast(pa.int8())


def _repeated(names: Sequence[str] | np.ndarray, codes: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(list(names), pa.string()))


def _schema() -> pa.Schema:
    name = pa.dictionary(pa.int32(), pa.string())
    counts = [(column, pa.int64()) for column in ("n_pert", "n_control")]
    numbers = (
        "mean_pert",
        "mean_control",
        "log2_fold_change",
        "u_statistic",
        "p_value",
        "p_adj",
        "log10_p_value",
    )
    columns = [("pert", name), ("gene", name), *counts, *((column, pa.float64()) for column in numbers)]
    return pa.schema([*columns, ("direction", pa.int8()), ("n_control_effective", pa.float64())])
