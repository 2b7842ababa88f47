from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import tasks.screens.ingest
from storage.errors import InputError
from tasks.screens.ingest import ingest_screen
from tasks.screens.tiles import check_counts
from tests.screens import CONTROL, KEYS, ingest, random_counts, random_names, stored_counts, write_screen

FORMATS = {
    "dense": np.ascontiguousarray,
    "dense, column order": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
}
TYPES = ["float32", "float64", "uint8", "int8", "uint16", "int32", "int64", "uint64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", FORMATS)
def test_counts_are_the_same_whatever_their_layout_and_type(tmp_path, kind, dtype):
    counts = np.minimum(random_counts(83, 13, seed=2), 100)
    path = write_screen(tmp_path / "x.h5ad", FORMATS[kind](counts.astype(dtype)), random_names(83, 3))
    screen = ingest(path, tmp_path / "store")
    np.testing.assert_array_equal(stored_counts(screen).toarray(), counts)
    np.testing.assert_array_equal(screen.cells("library_size")["library_size"], counts.sum(axis=1))


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">i8", "bool"])
def test_dense_counts_of_rare_types_are_read_too(tmp_path, dtype):
    counts = np.minimum(random_counts(40, 7), 1 if dtype == "bool" else 100)
    path = write_screen(tmp_path / "x.h5ad", counts.astype(dtype), random_names(40, 3))
    np.testing.assert_array_equal(stored_counts(ingest(path, tmp_path / "store")).toarray(), counts)


def test_a_chunked_matrix_gives_the_bytes_of_a_contiguous_one(tmp_path):
    counts = random_counts(90, 12).astype(np.float32)
    names = random_names(90, 3)
    stores = []
    for place, options in (("a", {}), ("b", {"chunks": (7, 5), "compression": "gzip"})):
        path = write_screen(tmp_path / f"{place}.h5ad", counts, names)
        with h5py.File(path, "a") as file:
            attributes = dict(file["X"].attrs)
            del file["X"]
            file.create_dataset("X", data=counts, **options)
            file["X"].attrs.update(attributes)
        ingest(path, tmp_path / place)
        stores.append(
            {p.relative_to(tmp_path / place): p.read_bytes() for p in (tmp_path / place).rglob("*.*")}
        )
    assert stores[0] == stores[1]


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_unsorted_duplicate_and_zero_entries_are_what_scipy_takes_them_for(tmp_path, kind, dtype):
    rng = np.random.default_rng(5)
    n_cells, n_genes, n_entries = 50, 9, 400
    rows, columns = rng.integers(0, n_cells, n_entries), rng.integers(0, n_genes, n_entries)
    data = rng.integers(0, 3, n_entries)
    # Two entries for one place that together do not fit 8 bits.
    rows, columns, data = np.append(rows, [7, 7]), np.append(columns, [3, 3]), np.append(data, [200, 100])
    lines, across = (rows, columns) if kind == "csr" else (columns, rows)
    order = np.argsort(lines, kind="stable")
    size = n_cells if kind == "csr" else n_genes
    indptr = np.concatenate([[0], np.cumsum(np.bincount(lines, minlength=size))])
    expected = sparse.coo_matrix((data, (rows, columns)), shape=(n_cells, n_genes)).toarray()
    path = write_screen(
        tmp_path / "x.h5ad", sparse.csr_matrix((n_cells, n_genes), dtype=np.float32), random_names(n_cells, 2)
    )
    with h5py.File(path, "a") as file:
        group = file["X"]
        group.attrs["encoding-type"] = f"{kind}_matrix"
        for name, values in (
            ("data", data[order].astype(dtype)),
            ("indices", across[order]),
            ("indptr", indptr),
        ):
            del group[name]
            group[name] = values
    screen = ingest(path, tmp_path / "store")
    np.testing.assert_array_equal(stored_counts(screen).toarray(), expected)
    assert (screen.read_genes(0, n_genes).counts > 0).all()
    np.testing.assert_array_equal(screen.cells("library_size")["library_size"], expected.sum(axis=1))
    np.testing.assert_array_equal(screen.cells("n_genes")["n_genes"], (expected > 0).sum(axis=1))


@pytest.mark.parametrize("kind", FORMATS)
def test_cells_without_a_perturbation_and_other_cell_lines_are_left_out(tmp_path, kind):
    counts = random_counts(80, 6)
    names = random_names(80, 3)
    line = np.where(np.arange(80) % 3 == 0, "K562", "RPE1")
    missing = np.arange(80) % 7 == 0
    given = [None if gone else name for gone, name in zip(missing, names, strict=True)]
    path = write_screen(tmp_path / "x.h5ad", FORMATS[kind](counts), pd.Categorical(given), line=line)
    seen = ingest_screen(path, tmp_path / "a", **KEYS, only="line=K562")
    chosen = (line == "K562") & ~missing
    assert (seen.n_cells, seen.n_unassigned) == (chosen.sum(), ((line == "K562") & missing).sum())
    screen = ingest(path, tmp_path / "store", only="line=K562")
    np.testing.assert_array_equal(stored_counts(screen).toarray(), counts[chosen])
    assert screen.cells()["perturbation"].astype(str).tolist() == names[chosen].tolist()
    assert seen.n_values == (counts[chosen] > 0).sum()


def test_more_genes_than_are_laid_out_at_once_unevenly_filled_are_all_there(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.where(rng.random((60, 2_100)) < rng.random((60, 1)) ** 4, 2.0, 0.0))
    counts[:5, :1_500] = 0
    path = write_screen(tmp_path / "x.h5ad", sparse.csr_matrix(counts), random_names(60, 3))
    np.testing.assert_array_equal(stored_counts(ingest(path, tmp_path / "store")).toarray(), counts)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_long_stretch_of_cells_that_are_left_out_takes_no_room(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(tasks.screens.ingest, "BLOCK_VALUES", 20)
    monkeypatch.setattr(tasks.screens.ingest, "TILE_VALUES", 60)
    monkeypatch.setattr(tasks.screens.ingest, "TILE_STARTS", 60)
    counts = random_counts(400, 6, density=1)
    line = np.where((np.arange(400) < 350) & (np.arange(400) > 5), "other", "K562")
    path = write_screen(tmp_path / "x.h5ad", FORMATS[kind](counts), random_names(400, 3), line=line)
    screen = ingest(path, tmp_path / "store", only="line=K562")
    np.testing.assert_array_equal(stored_counts(screen).toarray(), counts[line == "K562"])


def test_counts_that_are_too_large_only_together_are_refused(tmp_path):
    counts = np.zeros((60, 3), np.int64)
    counts[:, 1] = 1
    path = write_screen(
        tmp_path / "x.h5ad", sparse.csr_matrix(counts), random_names(60, 2), line=["other"] + ["K562"] * 59
    )
    with h5py.File(path, "a") as file:
        indptr = file["X"]["indptr"][:]
        data, indices = file["X"]["data"][:], file["X"]["indices"][:]
        at = indptr[40]
        for name, values in (
            ("data", np.insert(data, at, [3_000_000_000, 3_000_000_000])),
            ("indices", np.insert(indices, at, [0, 0])),
            ("indptr", indptr + 2 * (np.arange(61) > 40)),
        ):
            del file["X"][name]
            file["X"][name] = values
    with pytest.raises(InputError, match=r"6,000,000,000 .*at most 4,294,967,295"):
        ingest(path, tmp_path / "store", only="line=K562")


@pytest.mark.parametrize("row", [1, 2900])
def test_values_of_cells_that_are_left_out_are_nobody_s_business(tmp_path, row):
    counts = random_counts(3000, 500).astype(np.float32)
    line = np.full(3000, "K562")
    line[row], counts[row] = "other", 0.5
    path = write_screen(tmp_path / "x.h5ad", counts, random_names(3000, 3), line=line)
    assert ingest_screen(path, tmp_path / "a", **KEYS, only="line=K562").n_cells == 2999
    counts[row - 1, 0] = 0.5
    path = write_screen(tmp_path / "y.h5ad", counts, random_names(3000, 3), line=line)
    with pytest.raises(InputError, match="1 values are not whole numbers"):
        ingest_screen(path, tmp_path / "b", **KEYS, only="line=K562")


def test_cells_without_a_guide_and_genes_without_a_name_are_refused(tmp_path):
    import anndata

    names = random_names(60, 2)
    guides = [None if i < 5 else f"{name}_1" for i, name in enumerate(names)]
    path = write_screen(tmp_path / "x.h5ad", random_counts(60, 5), names, sg=pd.Categorical(guides))
    table = anndata.read_h5ad(path)
    table.var["symbol"] = pd.Categorical(["V", None, "X", None, "Z"])
    table.write_h5ad(path)
    with pytest.raises(InputError) as error:
        ingest(path, tmp_path / "store", guide_key="sg", gene_key="symbol")
    assert list(error.value.problems) == ["2 genes have no name in 'symbol'", "5 cells have no value in 'sg'"]


def test_empty_guides_and_batches_are_refused(tmp_path):
    names = random_names(60, 2)
    guides, batches = ["" if i < 5 else "g" for i in range(60)], ["" if i < 7 else "b" for i in range(60)]
    path = write_screen(tmp_path / "x.h5ad", random_counts(60, 5), names, sg=guides, lane=batches)
    with pytest.raises(InputError) as error:
        ingest(path, tmp_path / "store", guide_key="sg", batch_key="lane")
    assert list(error.value.problems) == [
        "5 cells have an empty value in 'sg'",
        "7 cells have an empty value in 'lane'",
    ]


def test_counts_of_a_layer_and_names_of_other_columns_are_used_where_asked_for(tmp_path):
    counts, names = random_counts(60, 5), random_names(60, 2)
    path = write_screen(
        tmp_path / "x.h5ad",
        np.log1p(counts),
        ["x"] * 60,
        layers={"umis": sparse.csc_matrix(counts)},
        target=names,
        sg=[f"{name}_{i % 2}" for i, name in enumerate(names)],
        gem=["1", "2", "3"] * 20,
    )
    import anndata

    table = anndata.read_h5ad(path)
    table.var["symbol"] = list("VWXYZ")
    table.write_h5ad(path)
    screen = ingest(
        path,
        tmp_path / "store",
        perturbation_key="target",
        layer="umis",
        gene_key="symbol",
        guide_key="sg",
        batch_key="gem",
    )
    np.testing.assert_array_equal(stored_counts(screen).toarray(), counts)
    assert screen.genes.tolist() == list("VWXYZ")
    cells = screen.cells()
    assert cells["perturbation"].astype(str).tolist() == names.tolist()
    assert cells["batch"].astype(str).tolist() == ["1", "2", "3"] * 20
    assert cells["guide"].astype(str).iloc[3] == f"{names[3]}_1"


@pytest.mark.parametrize(
    ("control", "controls"),
    [
        ("NT_1", {"NT_1"}),
        ("NT_1,safe", {"NT_1", "safe"}),
        ("NT_*", {"NT_1", "NT_2"}),
        ("NT_*, safe", {"NT_1", "NT_2", "safe"}),
        ("ctrl[1],x", {"ctrl[1],x"}),
    ],
)
def test_controls_are_named_by_one_name_several_or_a_pattern(tmp_path, control, controls):
    names = ["NT_1", "NT_2", "safe", "ctrl[1],x", "A", "NT"] * 5
    path = write_screen(tmp_path / "x.h5ad", random_counts(30, 4), names)
    cells = ingest(path, tmp_path / "store", control=control).cells()
    expected = [name in controls for name in names]
    assert cells["control"].tolist() == expected
    perturbed = cells["perturbation"][~cells["control"]].astype(str).tolist()
    assert perturbed == [name for name in names if name not in controls]


def test_progress_is_told_in_cells_up_to_all_of_them(tmp_path):
    path = write_screen(tmp_path / "x.h5ad", random_counts(30, 4), random_names(30, 2))
    told = []
    ingest_screen(path, tmp_path / "s", **KEYS, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30)


@pytest.mark.parametrize(
    ("fault", "value", "said"),
    [
        ("NaN", np.nan, "1 values are NaN or infinite in cells"),
        ("infinite", np.inf, "1 values are NaN or infinite in cells"),
        ("negative", -1, "1 values are negative in cells"),
        ("fraction", 2.5, "1 values are not whole numbers in cells"),
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_value_that_is_no_count_is_found_in_the_last_cell_and_nothing_is_written(
    tmp_path, kind, fault, value, said
):
    counts = random_counts(200, 10).astype(np.float64)
    counts[199, 9] = value
    path = write_screen(tmp_path / "x.h5ad", FORMATS[kind](counts), random_names(200, 3))
    with pytest.raises(InputError, match=said):
        ingest(path, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_values_are_told_apart_as_numpy_does():
    rng = np.random.default_rng(0)
    values = rng.choice([0, 1, 2.5, -1, -2.5, np.nan, np.inf, -np.inf, 7e9], 5000)
    finite = values[np.isfinite(values)]
    expected = ((~np.isfinite(values)).sum(), (finite < 0).sum(), (finite % 1 != 0).sum(), finite.max())
    assert check_counts(values) == expected


def test_log_transformed_values_are_recognised_and_the_counts_pointed_at(tmp_path):
    counts = random_counts(60, 6)
    path = write_screen(
        tmp_path / "x.h5ad", sparse.csr_matrix(np.log1p(counts)), random_names(60, 2), layers={"umis": counts}
    )
    with pytest.raises(InputError, match=r"look log-transformed.*raw counts may be in umis \(--layer\)"):
        ingest(path, tmp_path / "store")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_every_problem_of_names_and_values_is_in_one_message(tmp_path):
    counts = random_counts(60, 4).astype(np.float64)
    counts[0, 0], counts[1, 0], counts[2, 0] = np.nan, -1, 0.5
    genes = ["A", "B", "A", "C"]
    path = write_screen(tmp_path / "x.h5ad", counts, ["P0", ""] * 30, genes=genes, gem_group=["1", "2"] * 30)
    with pytest.raises(InputError) as error:
        ingest(path, tmp_path / "store", batch_key="gem_groups", guide_key="sg", only="nothing")
    problems = " | ".join(error.value.problems)
    for said in (
        "obs has no column 'gem_groups'; did you mean gem_group?",
        "obs has no column 'sg'",
        "--only takes column=value",
        "1 gene names in the index of var are duplicated (A)",
        f"no control cells: no 'perturbation' is '{CONTROL}'",
        "P0 (30)",
        "30 cells have an empty perturbation name",
        "1 values are NaN or infinite",
        "1 values are negative",
        "1 values are not whole numbers",
    ):
        assert said in problems
    assert len(error.value.problems) == 9
