"""Gene blocks as units of work: spread over Dask, each done when its own file is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from storage.atomic import atomic_path
from storage.errors import LedgerError
from storage.screens import Screen
from tasks.expression.groups import CellGroups
from tasks.expression.kernels import rank_sum_block, stratified_block
from tasks.expression.p_values import rank_sum_p, stratified_p

if TYPE_CHECKING:
    from distributed import Client, Future

#: What a block file holds for each group and gene, in this order.
FIELDS = ("u_statistic", "p_value", "log10_p_value", "mean")
#: Means are given per 10,000 UMIs of a cell where counts are divided by library size.
MEAN_SCALE = 10_000.0


@dataclass(frozen=True)
class BlockLedger:
    """Blocks requested, found done from an earlier run, and done now."""

    requested: int
    skipped: int
    done: int


def block_id(index: int) -> str:
    """Printable name of a gene block."""
    return f"genes-{index:04d}"


def compare_block(store: str, target: str, first: int, last: int, groups: CellGroups, scale: float) -> str:
    """Test one block of genes and write (4, n_groups + 1, n_genes) float64; the last row is the controls.

    Fields are as in `FIELDS`; for the controls only the mean is set.
    """
    block = Screen(store).read_genes(first, last)
    values = (block.starts, block.cells, block.counts, groups.group)
    if groups.stratum is None:
        u, ties, totals = rank_sum_block(*values, groups.library, groups.sizes)
        p_value, log10_p = rank_sum_p(u, ties, groups.sizes[:-1, None], groups.sizes[-1])
    else:
        u, z, totals = stratified_block(*values, groups.stratum, groups.library, groups.sizes_by_stratum())
        p_value, log10_p = stratified_p(z)
    result = np.full((len(FIELDS), len(groups.sizes), block.n_genes), np.nan)
    result[0, :-1], result[1, :-1], result[2, :-1] = u, p_value, log10_p
    result[3] = totals / np.maximum(groups.sizes, 1)[:, None] * scale
    write_block(target, result)
    return target


def shared(client: Client, value: object) -> Future:
    """Give all blocks one argument, whatever its size; it is made again where its worker dies.

    Not by ``client.scatter``: what is scattered goes with its workers, and with it all blocks that want it.
    """
    import dask

    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"}):
        return client.submit(_itself, value, pure=False)


def _itself(value: object) -> object:
    return value


def run_blocks(
    client: Client,
    function: Callable[..., str],
    units: Sequence[tuple[Path, tuple[int, ...], tuple]],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BlockLedger:
    """Run ``function(store, target, first, last, ...)`` for every unit whose file is not whole yet.

    Parameters
    ----------
    units
        ``(target file, shape of its array, arguments)``; what all of them take is given by `shared`.
    progress
        Told how many blocks are finished, of how many.

    Raises
    ------
    LedgerError
        If blocks are missing in the end. An error inside a block is raised as it is.
    """
    # Half a second to import, which a process that tests a block by itself need not wait.
    from distributed import as_completed

    waiting = [unit for unit in units if read_block(unit[0], unit[1]) is None]
    skipped = len(units) - len(waiting)
    progress(skipped, len(units))
    futures = [
        client.submit(function, *arguments, pure=False, key=f"{function.__name__}-{target}")
        for target, _, arguments in waiting
    ]
    done = 0
    for future in as_completed(futures, loop=client.loop):
        future.result()
        done += 1
        progress(skipped + done, len(units))
    missing = [target.name for target, shape, _ in units if read_block(target, shape) is None]
    if missing:
        raise LedgerError(f"{len(units)} blocks requested, {len(missing)} not done: {', '.join(missing[:5])}")
    return BlockLedger(len(units), skipped, done)


@dataclass(frozen=True)
class BlockFile:
    """A finished block's array, opened anew each time it is indexed.

    Pages of a mapped file that were looked at count as the process's memory until the mapping goes, and a
    table is put together from all blocks of a screen.
    """

    path: Path
    shape: tuple[int | None, ...]

    def __getitem__(self, key) -> np.ndarray:
        return read_block(self.path, self.shape)[key]


def write_block(target: str | Path, values: np.ndarray) -> None:
    """Write a block's array, atomically."""
    with atomic_path(target) as temporary, temporary.open("wb") as handle:
        # Not np.save: on a full disk it raises an error that does not say so.
        values = np.ascontiguousarray(values)
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(values))
        handle.write(values.data)


def read_block(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Map a block's file into memory; None where it is missing, cut off or of another shape.

    A size of None in ``shape`` stands for any.
    """
    try:
        values = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError, OSError):
        return None
    fits = len(values.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(values.shape, shape, strict=True)
    )
    return values if fits else None
