from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

import storage.screens
import tasks.screens.ingest
from storage.errors import InputError
from storage.manifest import file_digest
from storage.screens import Screen, ScreenWriter
from tests.screens import ingest, random_counts, random_names, stored_counts, write_screen


def small_tiles(monkeypatch, cells=7, values=150):
    """Tiles, chunks and shards so small that a test's screen needs many of each."""
    monkeypatch.setattr(storage.screens, "TILE_CELLS", cells)
    monkeypatch.setattr(tasks.screens.ingest, "TILE_CELLS", cells)
    monkeypatch.setattr(tasks.screens.ingest, "TILE_VALUES", values)
    monkeypatch.setattr(storage.screens, "ENCODED_GENES", 5)
    monkeypatch.setattr(storage.screens, "CHUNK", 64)
    monkeypatch.setattr(storage.screens, "CHUNKS_PER_SHARD", 2)


@pytest.fixture(params=["one tile", "many tiles", "many tiles, csc"])
def screen_and_counts(request, tmp_path, monkeypatch):
    if request.param != "one tile":
        # Of a CSC file more cells are read at once than have room in a tile.
        small_tiles(monkeypatch, values=30 if request.param.endswith("csc") else 150)
    counts = random_counts(101, 23, seed=4)
    kind = sparse.csc_matrix if request.param.endswith("csc") else sparse.csr_matrix
    path = write_screen(tmp_path / "x.h5ad", kind(counts), random_names(101, 4))
    screen = ingest(path, tmp_path / "store")
    n_tiles = len(screen._root.attrs["tile_cells"])
    assert (n_tiles > 10) == (request.param != "one tile")
    return screen, counts


def test_a_store_gives_back_every_count(screen_and_counts):
    screen, counts = screen_and_counts
    assert (screen.n_cells, screen.n_genes) == counts.shape
    np.testing.assert_array_equal(stored_counts(screen).toarray(), counts)
    np.testing.assert_array_equal(screen.values_per_gene, (counts > 0).sum(axis=0))


def test_any_range_of_genes_is_scipys_slice_of_columns(screen_and_counts):
    screen, counts = screen_and_counts
    columns = sparse.csc_matrix(counts)
    for first in range(0, screen.n_genes, 2):
        for last in range(first + 1, screen.n_genes + 1, 7):
            block, expected = screen.read_genes(first, last), columns[:, first:last]
            assert (block.first, block.n_genes) == (first, last - first)
            np.testing.assert_array_equal(block.starts, expected.indptr)
            np.testing.assert_array_equal(block.cells, expected.indices)
            np.testing.assert_array_equal(block.counts, expected.data)


def test_the_table_of_cells_comes_back_with_library_sizes(screen_and_counts):
    screen, counts = screen_and_counts
    cells = screen.cells()
    np.testing.assert_array_equal(cells["library_size"], counts.sum(axis=1))
    np.testing.assert_array_equal(cells["n_genes"], (counts > 0).sum(axis=1))
    assert cells["perturbation"].astype(str).tolist() == random_names(101, 4).tolist()
    assert (cells["control"] == (random_names(101, 4) == "non-targeting")).all()
    assert list(screen.cells("control", "library_size")) == ["control", "library_size"]
    assert screen.has_column("perturbation")
    assert not screen.has_column("guide")


@pytest.mark.parametrize(("most_values", "most_genes"), [(1, 1000), (60, 1000), (10**9, 5), (10**9, 1000)])
def test_gene_blocks_cover_every_gene_once_within_their_limits(screen_and_counts, most_values, most_genes):
    screen, counts = screen_and_counts
    blocks = screen.gene_blocks(most_values=most_values, most_genes=most_genes)
    assert [gene for first, last in blocks for gene in range(first, last)] == list(range(screen.n_genes))
    per_gene = (counts > 0).sum(axis=0)
    for first, last in blocks:
        assert last - first <= most_genes
        assert last - first == 1 or per_gene[first:last].sum() <= most_values


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(65_535, np.uint16), (65_536, np.uint32), (70_000, np.uint32), (2**32 - 1, np.uint32)],
)
def test_counts_beyond_16_bits_are_kept_in_32(tmp_path, monkeypatch, largest, dtype):
    small_tiles(monkeypatch)
    counts = random_counts(60, 9).astype(np.float64)
    counts[59, 4] = largest
    path = write_screen(tmp_path / "x.h5ad", sparse.csr_matrix(counts), random_names(60, 2))
    screen = ingest(path, tmp_path / "store")
    assert screen.read_genes(0, 9).counts.dtype == dtype
    np.testing.assert_array_equal(stored_counts(screen).toarray(), counts)
    assert screen.cells("library_size")["library_size"].iloc[59] == counts[59].sum()


@pytest.mark.parametrize("dense", [True, False])
def test_a_count_that_fits_nowhere_is_refused_not_cut(tmp_path, dense):
    counts = random_counts(60, 9).astype(np.float64)
    counts[40, 4] = 2**32 + 5
    path = write_screen(
        tmp_path / "x.h5ad", counts if dense else sparse.csr_matrix(counts), random_names(60, 2)
    )
    with pytest.raises(InputError, match=r"4,294,967,301 .*at most 4,294,967,295"):
        ingest(path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_same_input_gives_the_same_bytes_in_every_file_whatever_the_threads(tmp_path, monkeypatch):
    small_tiles(monkeypatch, cells=40, values=400)
    monkeypatch.setattr(tasks.screens.ingest, "BLOCK_VALUES", 100)
    names = random_names(200, 4)
    path = write_screen(tmp_path / "x.h5ad", random_counts(200, 30), names, guide=names + "_1")
    digests = []
    for place, threads in (("a", 1), ("b", 4)):
        monkeypatch.setattr(tasks.screens.ingest, "THREADS", threads)
        ingest(path, tmp_path / place, guide_key="guide")
        files = sorted(p for p in (tmp_path / place).rglob("*") if p.is_file())
        digests.append({str(p.relative_to(tmp_path / place)): file_digest(p) for p in files})
    assert len(digests[0]) > 10
    assert digests[0] == digests[1]


def test_a_larger_screen_is_a_few_dozen_files_and_small(tmp_path):
    n_genes, per_cell = 2_000, 500
    rng = np.random.default_rng(0)
    writer = ScreenWriter(
        tmp_path / "store", genes=np.array([f"g{i}" for i in range(n_genes)]), dtype=np.uint16
    )
    tiles = []
    for n_cells in (20_000, 20_000, 3_000):
        n_values = n_cells * per_cell // n_genes
        rows = np.array([np.sort(rng.choice(n_cells, n_values, replace=False)) for _ in range(n_genes)])
        counts = rng.geometric(0.6, rows.shape)
        values = ((rows << 16) | counts).ravel().astype(np.uint32)
        writer.append(values, np.arange(n_genes + 1)[None] * n_values, n_cells=n_cells)
        tiles.append((rows, counts))
    writer.close(pd.DataFrame({"library_size": np.zeros(43_000, np.int64)}))
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(files) < 30
    n_values = sum(rows.size for rows, _ in tiles)
    assert n_values > 20_000_000
    assert sum(path.stat().st_size for path in files) < n_values
    block = Screen(tmp_path / "store").read_genes(1_234, 1_235)
    offsets = (0, 20_000, 40_000)
    cells = np.concatenate([rows[1_234] + at for (rows, _), at in zip(tiles, offsets, strict=True)])
    np.testing.assert_array_equal(block.cells, cells)
    np.testing.assert_array_equal(block.counts, np.concatenate([counts[1_234] for _, counts in tiles]))


def test_a_tile_of_too_many_cells_is_refused(tmp_path):
    writer = ScreenWriter(tmp_path / "store", genes=np.array(["g"]), dtype=np.uint16)
    with pytest.raises(ValueError, match="at most 65536 cells"):
        writer.append(np.empty(0, np.uint32), np.zeros((1, 2), np.int64), n_cells=65_537)


def test_values_of_another_width_than_the_store_s_are_refused(tmp_path):
    writer = ScreenWriter(tmp_path / "store", genes=np.array(["g"]), dtype=np.uint16)
    with pytest.raises(ValueError, match="values of 4 bytes are needed, got 8"):
        writer.append(np.array([3], np.uint64), np.array([[0, 1]]), n_cells=1)


def _set(name, at, value):
    def damage(store):
        array = zarr.open_group(str(store))[name]
        values = array[:]
        values[at] = value
        array[:] = values

    return damage


def _cut_off(store):
    codes = zarr.open_group(str(store))["codes"]
    codes.resize((codes.shape[0] - 3,))


def _change_a_byte(store):
    file = next(path for path in (store / "codes" / "c").rglob("*") if path.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


def _remove(name):
    return lambda store: shutil.rmtree(store / name / "c")


DAMAGES = {
    "a byte changed": _change_a_byte,
    "fewer codes": _cut_off,
    "no codes": _remove("codes"),
    "no starts": _remove("starts"),
    "no lengths": _remove("lengths"),
    "codes that never end": _set("codes", slice(-8, None), 0xFF),
    "cells beyond the tile": _set("codes", slice(-8, None), 0xE0),
    "starts beyond the codes": _set("starts", (0, slice(2, 4)), 10**9),
    "starts out of order": _set("starts", (0, 3), 0),
    "a gene longer than its codes": _set("lengths", (0, 2), 10**6),
    "a negative length": _set("lengths", (0, 2), -5),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_store_that_is_not_what_was_written_is_found_out(tmp_path, damage):
    path = write_screen(tmp_path / "x.h5ad", random_counts(80, 6, density=2), random_names(80, 2))
    ingest(path, tmp_path / "store")
    DAMAGES[damage](tmp_path / "store")
    with pytest.raises(InputError, match="the store is damaged; delete it and make it again"):
        Screen(tmp_path / "store").read_genes(0, 6)


@pytest.mark.parametrize("what", ["missing", "empty folder", "file", "other zarr"])
def test_what_is_not_a_screen_store_is_said_to_be_none(tmp_path, what):
    path = tmp_path / "store"
    if what == "empty folder":
        path.mkdir()
    elif what == "file":
        path.write_text("text")
    elif what == "other zarr":
        import zarr

        zarr.open_group(str(path), mode="w", zarr_format=3)
    with pytest.raises(InputError, match="not a screen store"):
        Screen(path)


def test_a_screen_in_which_nothing_is_expressed_can_be_stored(tmp_path):
    path = write_screen(
        tmp_path / "x.h5ad", sparse.csr_matrix((30, 5), dtype=np.float32), random_names(30, 2)
    )
    screen = ingest(path, tmp_path / "store")
    assert stored_counts(screen).nnz == 0
    assert screen.cells("library_size")["library_size"].sum() == 0
    assert screen.gene_blocks() == [(0, 5)]


def test_threads_that_read_leave_zarr_s_settings_alone(tmp_path):
    """A store's bytes must not depend on who else in the process reads one."""
    before = dict(zarr.config.config["codec_pipeline"])
    writer = ScreenWriter(tmp_path / "s.zarr", genes=np.array(["a"]), dtype=np.uint16)
    writer.append(np.array([3], np.uint32), np.array([[0, 1]]), n_cells=1)
    writer.close(pd.DataFrame({"library_size": [3]}))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Screen(tmp_path / "s.zarr").read_genes(0, 1), range(200)))
    assert zarr.config.config["codec_pipeline"] == before
