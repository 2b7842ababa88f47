"""Scores of gene sets in single cells, and their tests against the controls; the unit of work is a set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from distributed import Client

from storage.errors import InputError
from storage.screens import Screen
from tasks.expression.blocks import BlockLedger, Unit, batch_means, run_blocks, shared, write_block
from tasks.expression.dense_ranks import rank_sums, stratified_rank_sums
from tasks.expression.false_discovery import adjust_within
from tasks.expression.groups import CellGroups
from tasks.expression.p_values import rank_sum_p, stratified_p

#: What a set's file holds for each group, in this order; of the last, the first place only is used.
FIELDS = ("u_statistic", "p_value", "log10_p_value", "mean", "umis", "side", "mean_control")


def measured_sets(sets: Mapping[str, Sequence[str]], screen: Screen, *, min_genes: int = 5) -> pd.DataFrame:
    """Which sets have enough genes in a screen.

    Returns
    -------
    DataFrame
        A row a set: ``gene_set, n_genes, n_measured, missing`` (symbols not in the screen or without any
        UMI, with commas between) ``, status`` (``kept`` or ``excluded``) ``, reason``.

    Raises
    ------
    InputError
        If no set has ``min_genes`` measured genes; every set is named.
    """
    measured = set(screen.genes[screen.values_per_gene > 0])
    rows = []
    for name, symbols in sets.items():
        present = [symbol for symbol in symbols if symbol in measured]
        missing = ", ".join(symbol for symbol in symbols if symbol not in measured)
        few = f"{len(present)} of {len(symbols)} genes measured, fewer than {min_genes}"
        reason = few if len(present) < min_genes else ""
        rows.append((name, len(symbols), len(present), missing, "excluded" if reason else "kept", reason))
    columns = ["gene_set", "n_genes", "n_measured", "missing", "status", "reason"]
    table = pd.DataFrame(rows, columns=columns)
    if (table["status"] == "excluded").all():
        problems = [f"set '{row.gene_set}': {row.reason}" for row in table.itertuples()]
        problems[-1] += (
            f"; the screen's genes are named like {', '.join(map(str, screen.genes[:3]))} (--gene-key names "
            "another column), --min-set-genes lowers the number needed"
        )
        raise InputError("gene sets", problems)
    return table


@dataclass(frozen=True)
class SetTests:
    """Tests of gene-set scores.

    Attributes
    ----------
    tests, null_tests
        As the tests of genes, with the set's name as ``gene``; null tests None without false perturbations.
    umis
        Float64 (n_sets,): UMIs a cell with which a gene's relative counting error is that of the score.
    """

    tests: pd.DataFrame
    null_tests: pd.DataFrame | None
    umis: np.ndarray


def compare_gene_sets(
    store: Path,
    sets: Mapping[str, Sequence[str]],
    *,
    groups: CellGroups,
    null_groups: CellGroups | None,
    blocks_folder: Path,
    client: Client,
    pseudocount: float = 0.1,
    adjust: Callable[[np.ndarray], np.ndarray] = adjust_within,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[SetTests, BlockLedger]:
    """Test the score of every set in every group against the controls.

    The score of a set in a cell is the mean over its measured genes of the z-score of UMI count / library
    size (by the controls' mean and standard deviation), moved and scaled so that the controls' mean score is
    1: 1.3 is 30 % more of the set, each gene weighing as much as it is certain. Ranks, U and p are those of
    the mean z-score itself.

    Parameters
    ----------
    sets
        Sets to be tested, by name; symbols that are not in the screen are left out.
    groups, null_groups
        The groups tested, and false perturbations made of control cells.
    adjust
        Makes adjusted p-values (n_groups, n_sets) from p-values.

    Returns
    -------
    SetTests, BlockLedger
        ``log2_fold_change = log2((mean_pert + c) / (mean_control + c))`` of mean scores.
    """
    screen = Screen(store)
    position = {gene: index for index, gene in enumerate(screen.genes)}
    both = {"groups": shared(client, groups), "null_groups": shared(client, null_groups)}
    n_rows = len(groups.sizes) + (0 if null_groups is None else len(null_groups.sizes))
    units = []
    for index, symbols in enumerate(sets.values()):
        # In the order of names, so that the order of genes in the screen changes no bit of a sum.
        genes = [position[symbol] for symbol in sorted(symbols) if symbol in position]
        piece = SetPiece(store, blocks_folder / f"set-{index:04d}.npy", np.array(genes))
        units.append(Unit(piece, (len(FIELDS), n_rows), both))
    ledger = run_blocks(client, score_set, units, progress=progress)
    blocks = np.stack([unit.file.read() for unit in units], axis=2)
    n = len(groups.sizes)
    options = {"names": list(sets), "pseudocount": pseudocount, "adjust": adjust}
    null = None if null_groups is None else _table(blocks[:, n:], null_groups, **options)
    return SetTests(_table(blocks[:, :n], groups, **options), null, blocks[4, 0]), ledger


@dataclass(frozen=True, eq=False)
class SetPiece:
    """One gene set of a screen.

    Attributes
    ----------
    store
        The screen's store, readable by the workers.
    target
        The file for what comes of the set.
    genes
        Positions of its measured genes, int64 (n_measured,).
    """

    store: Path
    target: Path
    genes: np.ndarray


def score_set(piece: SetPiece, groups: CellGroups, *, null_groups: CellGroups | None) -> Path:
    """Score and test one set; writes float64 (7, rows of both groupings), fields as in `FIELDS`."""
    score = set_score(Screen(piece.store), piece.genes, groups=groups)
    parts = [_tested(score, grouping) for grouping in (groups, null_groups) if grouping is not None]
    result = np.concatenate(parts, axis=1)
    result[4, 0] = 1 / np.sort(score[groups.group == len(groups.names)]).var(ddof=1)
    write_block(piece.target, result)
    return piece.target


def set_score(screen: Screen, genes: Sequence[int], *, groups: CellGroups) -> np.ndarray:
    """Score of a set in every cell, float64 (n_cells,); NaN where the controls show none of its genes.

    Genes are read one by one, so memory is a few values a cell whatever the size of the set. Those that the
    controls do not show cannot be standardised and are left out.
    """
    control = groups.group == len(groups.names)
    n_controls = int(control.sum())
    score, centre = np.zeros(screen.n_cells), 0.0
    for gene in genes:
        block = screen.read_genes(int(gene), int(gene) + 1)
        value = block.counts / groups.library[block.cells]
        # Sorted, so that the order of cells changes no bit.
        seen = np.sort(value[control[block.cells]])
        mean = seen.sum() / n_controls
        squares = ((seen - mean) ** 2).sum() + (n_controls - len(seen)) * mean**2
        if squares > 0:
            deviation = np.sqrt(squares / (n_controls - 1))
            score[block.cells] += value / deviation
            centre += mean / deviation
    return score / centre if centre else np.full(screen.n_cells, np.nan)


def _tested(score: np.ndarray, groups: CellGroups) -> np.ndarray:
    n, sizes = len(groups.names), groups.sizes
    result = np.full((len(FIELDS), n + 1), np.nan)
    if np.isnan(score).any():
        return result
    if groups.stratum is None:
        u, ties, totals = rank_sums(score, groups.group, n=n)
        p_value, log10_p = rank_sum_p(u, ties, n_pert=sizes[:-1], n_control=sizes[-1])
        side, mean_control = u - sizes[:-1] * sizes[-1] / 2, totals[-1] / sizes[-1]
    else:
        by_batch = {"stratum": groups.stratum, "sizes": groups.sizes_by_stratum()}
        u, side, totals, controls = stratified_rank_sums(score, groups.group, **by_batch)
        p_value, log10_p = stratified_p(side)
        mean_control = batch_means(controls[:, None], groups)[:, 0]
    result[:3, :-1] = u, p_value, log10_p
    result[3] = totals / np.maximum(sizes, 1)
    result[5, :-1], result[6, :-1] = side, mean_control
    return result


def _table(
    blocks: np.ndarray, groups: CellGroups, *, names: list[str], pseudocount: float, adjust: Callable
) -> pd.DataFrame:
    """The tests' table from (7, n_groups + 1, n_sets), by perturbation in the order of names."""
    order = np.argsort(np.array(groups.names, dtype=object), kind="stable")
    u, p_value, log10_p, mean = (blocks[field][order] for field in range(4))
    side, mean_control = blocks[5][order], blocks[6][order]
    n_control, effective = (np.repeat(numbers[order], len(names)) for numbers in groups.controls_compared())
    codes = np.repeat(np.arange(len(order)), len(names))
    columns = {
        "pert": pd.Categorical.from_codes(codes, [groups.names[row] for row in order]),
        "gene": pd.Categorical.from_codes(np.tile(np.arange(len(names)), len(order)), names),
        "n_pert": np.repeat(groups.sizes[order], len(names)),
        "n_control": n_control,
        "mean_pert": mean.ravel(),
        "mean_control": mean_control.ravel(),
        "log2_fold_change": np.log2((mean + pseudocount) / (mean_control + pseudocount)).ravel(),
        "u_statistic": u.ravel(),
        "p_value": p_value.ravel(),
        "p_adj": adjust(p_value).ravel(),
        "log10_p_value": log10_p.ravel(),
        "direction": pd.array(np.sign(side).ravel(), "Float64").astype("Int8"),
        "n_control_effective": effective,
    }
    return pd.DataFrame(columns)
