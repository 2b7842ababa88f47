"""Several tests of one screen held against each other: calls shared, and p-values where nothing changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from tasks.expression.calibration import called, expressed_tests, is_target

#: Quantiles kept of a test's p-values: the smallest all, the rest thinned.
ALL_OF_THE_SMALLEST = 200
THINNED = 400
NOT_TESTED, NOT_CALLED, CALLED = -1, 0, 1


def call_codes(
    tests: Iterable[tuple[str, pd.DataFrame]],
    perturbations: Sequence[str],
    genes: Sequence[str],
    *,
    fdr: float,
    min_log2_fold_change: float,
) -> np.ndarray:
    """What a test says of every pair: 1 called DE, 0 not, -1 not tested or the perturbed gene itself.

    Parameters
    ----------
    tests
        Each perturbation's name and tests (``gene, log2_fold_change, p_value, p_adj``).
    perturbations, genes
        Rows and columns of the result; tests of others are not looked at.

    Returns
    -------
    ndarray
        int8 (n_perturbations, n_genes), one byte a pair whatever the table's size.
    """
    codes = np.full((len(perturbations), len(genes)), NOT_TESTED, np.int8)
    row_of, columns = {name: row for row, name in enumerate(perturbations)}, pd.Index(genes)
    for name, rows in tests:
        if name in row_of:
            tested = rows[rows["p_value"].notna() & ~is_target(rows["gene"], name)]
            calls = called(tested, fdr=fdr, min_log2_fold_change=min_log2_fold_change)
            codes[row_of[name], columns.get_indexer(tested["gene"])] = calls
    return codes


def shared_calls(codes: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """How many of one test's calls another makes too, over the pairs that both have tested.

    Returns
    -------
    DataFrame
        ``test, other, n_both`` (pairs tested by both), ``n_called`` (by ``test``, of these), ``n_shared``
        (by both) and ``share = n_shared / n_called``; a row for each ordered pair of tests.
    """
    rows = []
    for test, other in permutations(codes, 2):
        both = (codes[test] != NOT_TESTED) & (codes[other] != NOT_TESTED)
        mine = both & (codes[test] == CALLED)
        n_called, n_shared = int(mine.sum()), int((mine & (codes[other] == CALLED)).sum())
        rows.append((test, other, int(both.sum()), n_called, n_shared))
    table = pd.DataFrame(rows, columns=["test", "other", "n_both", "n_called", "n_shared"])
    return table.assign(share=table["n_shared"] / table["n_called"].where(table["n_called"] > 0))


def null_quantiles(null_tests: pd.DataFrame) -> pd.DataFrame:
    """Ordered p-values of false perturbations, thinned for a QQ figure.

    Parameters
    ----------
    null_tests
        ``mean_pert, mean_control, p_value, log10_p_value``; genes that no cell expresses are left out, as in
        `tasks.expression.calibration.null_summary`.

    Returns
    -------
    DataFrame
        ``rank`` (1 = smallest p), ``n`` (p-values in all), ``minus_log10_p``.
    """
    ordered = np.sort(expressed_tests(null_tests)["log10_p_value"].to_numpy(np.float64))
    n = len(ordered)
    if not n:
        return pd.DataFrame({"rank": [], "n": [], "minus_log10_p": []}).astype({"rank": int, "n": int})
    first, rest = np.arange(1, min(n, ALL_OF_THE_SMALLEST) + 1), np.geomspace(1, n, THINNED).astype(np.int64)
    rank = np.unique(np.concatenate([first, rest]))
    return pd.DataFrame({"rank": rank, "n": n, "minus_log10_p": -ordered[rank - 1] + 0.0})
