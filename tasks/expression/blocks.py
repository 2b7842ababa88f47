"""Gene blocks as units of work: spread over Dask, each done when its own file is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from storage.atomic import atomic_path
from storage.errors import LedgerError, StorageError
from storage.screens import GeneBlock, Screen
from tasks.expression.groups import CellGroups
from tasks.expression.kernels import rank_sum_block, stratified_block
from tasks.expression.p_values import rank_sum_p, stratified_p

if TYPE_CHECKING:
    from distributed import Client, Future

#: What a block file holds for each group and gene, in this order.
FIELDS = ("u_statistic", "p_value", "log10_p_value", "mean")
#: And what it holds of a comparison within batches: the standardised statistic, and the mean of the controls
#: in the batches of the group.
FIELDS_WITHIN = (*FIELDS, "z", "mean_control")
#: Means are given per 10,000 UMIs of a cell where counts are divided by library size.
MEAN_SCALE = 10_000.0


@dataclass(frozen=True)
class BlockLedger:
    """Blocks requested, found done from an earlier run, and done now."""

    requested: int
    skipped: int
    done: int

    def __add__(self, other: BlockLedger) -> BlockLedger:
        return BlockLedger(
            self.requested + other.requested, self.skipped + other.skipped, self.done + other.done
        )


class Targeted(Protocol):
    """What one call works on."""

    @property
    def target(self) -> Path:
        """The file its array goes to."""


@dataclass(frozen=True)
class GeneSpan:
    """Consecutive genes of a screen.

    Attributes
    ----------
    store
        The screen's store, readable by the workers.
    target
        The file for what comes of these genes.
    first, last
        Positions of the first gene and of the one behind the last.
    """

    store: Path
    target: Path
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def read(self) -> GeneBlock:
        """The genes' counts."""
        return Screen(self.store).read_genes(self.first, self.last)


@dataclass(frozen=True)
class Unit:
    """One call of a block's function, and the array that it writes.

    Attributes
    ----------
    piece
        What it works on: the function's first argument.
    shape
        Of its array; None stands for any size.
    arguments
        The others by name; what all units take is given by `shared`.
    """

    piece: Targeted
    shape: tuple[int | None, ...]
    arguments: Mapping[str, object] = field(default_factory=dict)

    @property
    def file(self) -> BlockFile:
        """Its array, once it is done."""
        return BlockFile(self.piece.target, self.shape)

    @property
    def is_done(self) -> bool:
        """Whether its file is whole."""
        return read_block(self.piece.target, self.shape) is not None


def gene_spans(screen: Screen, folder: Path) -> list[GeneSpan]:
    """A screen's gene blocks, with a file in ``folder`` for each: ``genes-0000.npy`` and so on."""
    return [
        GeneSpan(screen.path, folder / f"genes-{index:04d}.npy", first, last)
        for index, (first, last) in enumerate(screen.gene_blocks())
    ]


def compare_block(span: GeneSpan, groups: CellGroups, *, scale: float) -> Path:
    """Test one block of genes and write (n_fields, n_groups + 1, n_genes) float64, the controls last.

    Fields are as in `FIELDS`, or `FIELDS_WITHIN` where cells are compared within batches; for the controls
    only the mean is set. Means are times ``scale``.
    """
    block = span.read()
    cells = {"counts": block.counts, "group": groups.group, "library": groups.library}
    within = groups.stratum is not None
    result = np.full((len(FIELDS_WITHIN if within else FIELDS), len(groups.sizes), block.n_genes), np.nan)
    if within:
        cells |= {"stratum": groups.stratum, "sizes": groups.sizes_by_stratum()}
        u, z, totals, controls = stratified_block(block.starts, block.cells, **cells)
        p_value, log10_p = stratified_p(z)
        result[4, :-1], result[5, :-1] = z, batch_means(controls, groups) * scale
    else:
        u, ties, totals = rank_sum_block(block.starts, block.cells, sizes=groups.sizes, **cells)
        p_value, log10_p = rank_sum_p(u, ties, n_pert=groups.sizes[:-1, None], n_control=groups.sizes[-1])
    result[0, :-1], result[1, :-1], result[2, :-1] = u, p_value, log10_p
    result[3] = totals / np.maximum(groups.sizes, 1)[:, None] * scale
    write_block(span.target, result)
    return span.target


def batch_means(totals: np.ndarray, groups: CellGroups) -> np.ndarray:
    """Mean of the controls that each group is compared with, from their sums in each batch.

    Parameters
    ----------
    totals
        float64 (n_strata, n_genes): sums over a batch's controls.
    groups
        With strata.

    Returns
    -------
    ndarray
        float64 (n, n_genes): the batches' means, each with the share of the group's cells in it.
    """
    shares, n_controls = groups.control_shares(), groups.sizes_by_stratum()[:, -1]
    means = np.zeros((len(shares), totals.shape[1]))
    # Not a matrix product, whose last bits depend on how many genes a block has.
    for share, total, n in zip(shares.T, totals, n_controls, strict=True):
        means += share[:, None] * (total / max(n, 1))
    return means


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
    function: Callable[..., Path],
    units: Sequence[Unit],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BlockLedger:
    """Run ``function(unit.piece, **unit.arguments)`` for every unit whose file is not whole yet.

    Parameters
    ----------
    progress
        Told how many blocks are finished, of how many.

    Raises
    ------
    LedgerError
        If blocks are missing in the end. An error inside a block is raised as it is.
    StorageError
        If a file that is there cannot be read.
    """
    # Half a second to import, which a process that tests a block by itself need not wait.
    from distributed import as_completed

    waiting = [unit for unit in units if not unit.is_done]
    skipped = len(units) - len(waiting)
    progress(skipped, len(units))
    futures = [
        client.submit(
            function, unit.piece, pure=False, key=f"{function.__name__}-{unit.piece.target}", **unit.arguments
        )
        for unit in waiting
    ]
    done = 0
    for future in as_completed(futures, loop=client.loop):
        future.result()
        done += 1
        progress(skipped + done, len(units))
    missing = [unit.piece.target.name for unit in units if not unit.is_done]
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

    def __getitem__(self, key: object) -> np.ndarray:
        return self.read()[key]

    def read(self) -> np.ndarray:
        """The whole array, mapped into memory; LedgerError where the file is not whole any more."""
        values = read_block(self.path, self.shape)
        if values is None:
            raise LedgerError(f"{self.path} is gone or cut off since it was done; run the same command again")
        return values


def write_block(target: str | Path, values: np.ndarray) -> None:
    """Write a block's array, atomically."""
    with atomic_path(target) as temporary, temporary.open("wb") as handle:
        # Not np.save: on a full disk it raises an error that does not say so.
        values = np.ascontiguousarray(values)
        np.lib.format.write_array_header_1_0(handle, np.lib.format.header_data_from_array_1_0(values))
        handle.write(values.data)


def read_block(path: Path, shape: tuple[int | None, ...]) -> np.ndarray | None:
    """Map a block's file into memory; None where it is missing, cut off or of another shape.

    A size of None in ``shape`` stands for any.

    Raises
    ------
    StorageError
        If it is there and cannot be read: to compute it again would end the same way.
    """
    try:
        values = np.load(path, mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    fits = len(values.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(values.shape, shape, strict=True)
    )
    return values if fits else None
