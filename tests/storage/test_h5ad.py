from __future__ import annotations

import fcntl

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from storage.errors import InputError
from storage.h5ad import H5adFile
from storage.one_ahead import one_ahead
from tests.screens import random_counts, random_names, write_screen

FORMATS = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}


def rows_of(file, most_values):
    """All rows put together from the blocks, and the first row of each block."""
    blocks = [
        (first, sparse.csr_matrix(block).toarray())
        for first, block in file.row_blocks(most_values=most_values)
    ]
    return np.vstack([block for _, block in blocks]), [first for first, _ in blocks]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("most_values", [1, 50, 1_000_000])
def test_blocks_of_rows_put_together_are_the_matrix(tmp_path, kind, most_values):
    counts = random_counts(53, 11)
    path = write_screen(tmp_path / "x.h5ad", FORMATS[kind](counts.astype(np.float32)), random_names(53, 3))
    with H5adFile(path) as file:
        assert (file.kind, file.n_cells, file.n_genes) == (kind, 53, 11)
        rows, firsts = rows_of(file, most_values)
    np.testing.assert_array_equal(rows, counts)
    assert firsts[0] == 0
    if kind != "csc":
        assert len(firsts) == 1 if most_values == 1_000_000 else len(firsts) > 4


@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", ">f8"])
def test_a_block_may_be_used_until_so_many_more_have_been_asked_for(tmp_path, kind, dtype):
    counts = np.minimum(random_counts(53, 11), 200)
    # AnnData writes no foreign byte order into sparse matrices.
    dtype = "float64" if kind == "csr" and dtype == ">f8" else dtype
    path = write_screen(tmp_path / "x.h5ad", FORMATS[kind](counts.astype(dtype)), random_names(53, 3))
    rows, values = [], []
    with H5adFile(path) as file:
        for _, block in one_ahead(file.row_blocks(most_values=50, in_use=2)):
            rows.append(sparse.csr_matrix(block).toarray())
            values.append(block.data if kind == "csr" else block)
    np.testing.assert_array_equal(np.vstack(rows), counts)
    if dtype == "float32":
        assert np.shares_memory(values[0], values[2])
        assert not np.shares_memory(values[0], values[1])


def test_a_chunked_dense_matrix_is_read_in_whole_chunks(tmp_path):
    counts = random_counts(53, 11)
    path = write_screen(tmp_path / "x.h5ad", counts.astype(np.float32), random_names(53, 3))
    with h5py.File(path, "a") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        file.create_dataset("X", data=counts.astype(np.float32), chunks=(8, 5), compression="gzip")
        file["X"].attrs.update(attributes)
    with H5adFile(path) as file:
        rows, firsts = rows_of(file, most_values=200)
    np.testing.assert_array_equal(rows, counts)
    assert firsts == list(range(0, 53, 16))


def test_a_row_larger_than_a_block_is_still_read(tmp_path):
    counts = np.full((5, 40), 3.0, np.float32)
    path = write_screen(tmp_path / "x.h5ad", sparse.csr_matrix(counts), random_names(5, 1))
    with H5adFile(path) as file:
        rows, firsts = rows_of(file, most_values=10)
    np.testing.assert_array_equal(rows, counts)
    assert firsts == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_layer_is_read_in_place_of_x(tmp_path, kind):
    counts = random_counts(20, 5)
    layers = {"counts": FORMATS[kind](counts)}
    path = write_screen(tmp_path / "x.h5ad", np.log1p(counts), random_names(20, 2), layers=layers)
    with H5adFile(path, layer="counts") as file:
        assert file.layers == ["counts"]
        np.testing.assert_array_equal(rows_of(file, 1000)[0], counts)
    with pytest.raises(InputError, match="no layer 'raw'; the file's layers: counts"):
        H5adFile(path, layer="raw")


def test_columns_are_those_that_anndata_reads(tmp_path):
    names = random_names(20, 2)
    path = write_screen(
        tmp_path / "x.h5ad",
        random_counts(20, 5),
        pd.Categorical(names),
        guide=names + "_1",
        depth=np.arange(20),
        missing=[None, "a"] * 10,
    )
    table = anndata.read_h5ad(path)
    with H5adFile(path) as file:
        assert file.columns("obs") == list(table.obs)
        for name in table.obs:
            got = file.column("obs", name).astype(object)
            pd.testing.assert_series_equal(
                got.where(got.notna(), None),
                table.obs[name].astype(object).where(table.obs[name].notna(), None).reset_index(drop=True),
                check_names=False,
            )
        assert file.column("obs", None).tolist() == list(table.obs_names)
        assert file.column("var", None).tolist() == list(table.var_names)


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_categorical_columns_written_by_anndata_0_7_are_names_not_codes(tmp_path):
    path = write_screen(tmp_path / "x.h5ad", random_counts(4, 5), list("abab"))
    with h5py.File(path, "a") as file:
        obs = file["obs"]
        del obs["perturbation"]
        categories = obs.create_group("__categories")
        categories["perturbation"] = np.array(["A", "B"], dtype=h5py.string_dtype())
        categories["perturbation"].attrs["ordered"] = False
        obs["perturbation"] = np.array([1, 0, -1, 1], np.int8)
        obs["perturbation"].attrs["categories"] = categories["perturbation"].ref
        obs.attrs["encoding-version"] = "0.1.0"
    expected = anndata.read_h5ad(path).obs["perturbation"]
    assert expected.astype(object).tolist()[:2] == ["B", "A"]
    with H5adFile(path) as file:
        got = file.column("obs", "perturbation")
        assert file.columns("obs") == ["perturbation"]
    assert got.isna().tolist() == [False, False, True, False]
    assert got.dropna().tolist() == expected.dropna().tolist()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("indices too large", "indices lie outside the matrix"),
        ("indices negative", "indices lie outside the matrix"),
        ("indptr too large", "indptr does not fit"),
        ("indptr falls", "indptr does not fit"),
        ("indptr short", "indptr does not fit"),
        ("data short", "indptr does not fit"),
    ],
)
@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_a_damaged_sparse_matrix_is_refused_before_it_is_followed(tmp_path, kind, harm, said):
    path = write_screen(tmp_path / "x.h5ad", FORMATS[kind](random_counts(30, 8)), random_names(30, 2))
    with h5py.File(path, "a") as file:
        part, *how = harm.split()
        values = file["X"][part][:]
        if how == ["short"]:
            values = values[:-3]
        else:
            values[4] = {"large": 10_000_000, "negative": -2, "falls": 0}[how[-1]]
        del file["X"][part]
        file["X"][part] = values
    with H5adFile(path) as file, pytest.raises(InputError, match=said):
        list(file.row_blocks())


@pytest.mark.parametrize("part", ["X", "obs", "var"])
def test_a_file_without_its_parts_is_no_h5ad(tmp_path, part):
    path = write_screen(tmp_path / "x.h5ad", random_counts(4, 5), list("abab"))
    with h5py.File(path, "a") as file:
        del file[part]
    with pytest.raises(InputError, match=f"not an h5ad file: {part} missing"):
        H5adFile(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: file["X"].attrs.update({"encoding-type": "dataframe"}), "stored as 'dataframe'"),
        (lambda file: file.move("obs", "old") or file.create_dataset("obs", data=[1]), "before anndata 0.7"),
        (lambda file: file.move("X", "old") or file.create_dataset("X", data=[[b"a"]]), "numbers are needed"),
    ],
    ids=["X is a table", "obs is an array", "X holds text"],
)
def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path, make, said):
    path = write_screen(tmp_path / "x.h5ad", random_counts(4, 5), list("abab"))
    with h5py.File(path, "a") as file:
        make(file)
    with pytest.raises(InputError, match=said):
        H5adFile(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_said_to_be_cut_off(tmp_path, share):
    path = write_screen(tmp_path / "x.h5ad", random_counts(300, 50), random_names(300, 2))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="cut off"):
        H5adFile(path)


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"PK\x03\x04" + b"\0" * 1000])
def test_a_file_of_another_kind_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "x.h5ad"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not an h5ad file \(it is not HDF5\)"):
        H5adFile(path)
    with pytest.raises(InputError, match="no such file"):
        H5adFile(tmp_path / "none.h5ad")


def test_a_chunk_that_cannot_be_decompressed_is_said_to_be_unreadable(tmp_path):
    path = tmp_path / "x.h5ad"
    counts = sparse.csr_matrix(random_counts(2000, 50))
    write_screen(path, counts, random_names(2000, 2))
    with h5py.File(path, "a") as file:
        values = file["X"]["data"][:]
        del file["X"]["data"]
        stored = file["X"].create_dataset("data", data=values, chunks=(1000,), compression="gzip")
        place = stored.id.get_chunk_info(3).byte_offset
    with path.open("r+b") as handle:
        handle.seek(place)
        handle.write(b"\xff" * 40)
    with H5adFile(path) as file, pytest.raises(InputError, match="cannot be read to its end"):
        list(file.row_blocks())


def test_a_file_that_may_not_be_read_is_not_said_to_be_another_kind(tmp_path, monkeypatch):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "screen.h5ad"
    path.write_bytes(b"x")
    monkeypatch.setattr(h5py, "File", forbidden)
    with pytest.raises(InputError, match="cannot be read: no permission"):
        H5adFile(path)


def test_a_layer_is_read_where_there_is_no_x(tmp_path):
    counts = random_counts(20, 6)
    path = write_screen(tmp_path / "x.h5ad", counts, random_names(20, 2), layers={"counts": counts})
    with h5py.File(path, "a") as file:
        del file["X"]
    with H5adFile(path, layer="counts") as file:
        np.testing.assert_array_equal(rows_of(file, 50)[0], counts)
    with pytest.raises(InputError, match=r"there is no X in it; .*--layer.*, one of: counts"):
        H5adFile(path)


def test_a_file_that_is_open_for_writing_elsewhere_is_not_said_to_be_something_else(tmp_path):
    path = write_screen(tmp_path / "x.h5ad", random_counts(20, 6), random_names(20, 2))
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="open elsewhere for writing"):
            H5adFile(path)
