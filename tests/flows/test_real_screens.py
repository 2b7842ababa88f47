from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

import flows.commands.label
from flows.__main__ import main
from storage.atomic import write_json
from storage.tables import read_frame, read_labels, read_recipe
from tests.screens import CONTROL

pytestmark = pytest.mark.shared_data

SCREENS = {
    "schraivogel": "schraivogel2020_k562_tapseq_crispri",
    "papalexi": "papalexi2021_thp1_crisprko",
    "datlinger": "datlinger2021_jurkat_scifi_2000hvg",
    "mcfaline": "mcfaline2024_gbm3lines_crispri_devel",
}


def path_of(shared_data, name):
    path = shared_data / "screens" / f"{SCREENS[name]}.h5ad"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="module", params=["schraivogel", "papalexi"])
def labelled(request, shared_data, tmp_path_factory):
    """Name, counts by perturbation, and the folder that `pqa label` wrote."""
    path = path_of(shared_data, request.param)
    out = tmp_path_factory.mktemp(request.param)
    assert (
        main(["label", str(path), "--out", str(out), "--guide-key", "guide_id", "--batch-key", "batch"]) == 0
    )
    return request.param, anndata.read_h5ad(path), out


def test_every_de_test_equals_scipys(labelled):
    _, table, out = labelled
    counts = table.X.toarray().astype(np.float64)
    values = counts / counts.sum(axis=1, keepdims=True)
    assert np.isfinite(values).all()
    names = table.obs["perturbation"].astype(str).to_numpy()
    tests = read_frame(out / "tests.parquet").astype({"pert": str, "gene": str})
    assert set(tests["pert"]) == set(names) - {CONTROL}
    for name, rows in tests.groupby("pert"):
        assert rows["gene"].tolist() == list(table.var_names)
        expected = mannwhitneyu(values[names == name], values[names == CONTROL], method="asymptotic", axis=0)
        np.testing.assert_array_equal(rows["u_statistic"], expected.statistic)
        np.testing.assert_allclose(rows["p_value"], expected.pvalue, rtol=1e-10, atol=0)
        assert set(rows["n_pert"]) == {(names == name).sum()}
        assert set(rows["n_control"]) == {(names == CONTROL).sum()}
        means = [1e4 * values[names == group].mean(axis=0) for group in (name, CONTROL)]
        fold = np.log2((means[0] + 0.1) / (means[1] + 0.1))
        np.testing.assert_allclose(rows["log2_fold_change"], fold, rtol=1e-9, atol=1e-12)


def test_the_responders_known_from_the_studies_are_found(labelled):
    name, _, out = labelled
    tests = read_frame(out / "tests.parquet").astype({"pert": str, "gene": str})
    perturbations = read_frame(out / "perturbations.parquet")
    if name == "schraivogel":
        targets = tests[tests["pert"] == tests["gene"]]
        assert len(targets) == 13
        assert (targets["log2_fold_change"] < 0).all()
        assert (targets["p_adj"] < 0.05).all()
        measured = perturbations[perturbations["target_measured"]]
        assert len(measured) == 13
        assert (measured["target_remaining"] < 1).all()
    else:
        n_de = (perturbations["n_up"] + perturbations["n_down"]).set_axis(perturbations["perturbation"])
        assert set(n_de.nlargest(4).index) == {"IFNGR1", "IFNGR2", "JAK2", "STAT1"}


def test_the_label_tables_follow_from_the_tests(labelled):
    _, _, out = labelled
    tests = read_frame(out / "tests.parquet").astype({"pert": str, "gene": str})
    de, direction = read_labels(out / "de.parquet"), read_labels(out / "dir.parquet")
    joined = de.merge(tests, on=["pert", "gene"], validate="one_to_one")
    assert len(joined) == len(de)
    called = (
        (tests["p_adj"] < 0.05) & (tests["log2_fold_change"].abs() >= 0.1) & (tests["pert"] != tests["gene"])
    )
    assert len(direction) == called.groupby(tests["pert"]).sum().clip(upper=20).sum()
    assert (joined["p_value"][joined["label"] == 0] >= 0.1).all()
    sides = de.drop_duplicates("pert")["split"].value_counts()
    assert sides["test"] == round(sides.sum() / 4)
    assert read_recipe(out / "de.parquet")["task"] == "de"


def test_pseudobulk_and_cell_numbers_are_those_of_pandas(labelled):
    _, table, out = labelled
    profiles = anndata.read_h5ad(out / "pseudobulk.h5ad")
    keys = [table.obs[key].astype(str).to_numpy() for key in ("perturbation", "batch")]
    expected = pd.DataFrame(table.X.toarray()).groupby(keys).sum()
    np.testing.assert_array_equal(profiles.X.toarray(), expected.to_numpy())
    perturbations = read_frame(out / "perturbations.parquet").set_index("perturbation")
    sizes = table.obs["perturbation"].astype(str).value_counts().drop(CONTROL)
    assert perturbations["n_cells"].to_dict() == sizes.to_dict()


def test_false_perturbations_are_whole_control_guides_with_few_calls(labelled):
    _, table, out = labelled
    null = read_frame(out / "null.parquet").astype({"pert": str})
    controls = table.obs[table.obs["perturbation"] == CONTROL]["guide_id"].astype(str).value_counts()
    held_out = null.drop_duplicates("pert").set_index("pert")["n_pert"]
    assert held_out.to_dict() == controls[held_out.index].to_dict()
    assert held_out.sum() <= controls.sum() / 2
    assert json.loads((out / "calibration.json").read_text())["null_perturbations"] == len(held_out)


@pytest.fixture
def no_report(monkeypatch):
    """Most of a small run's time is the drawing of its report, which others here have drawn."""
    monkeypatch.setattr(flows.commands.label, "label_report", lambda path, _: write_json(path, {}))


@pytest.mark.usefixtures("no_report")
def test_the_empty_screen_of_few_de_genes_is_labelled_too(shared_data, tmp_path, capsys):
    path = path_of(shared_data, "datlinger")
    arguments = ["label", str(path), "--out", str(tmp_path), "--guide-key", "guide_id", "--json"]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows["tests"]["tests.parquet"] == 20 * 2_000
    tests = read_frame(tmp_path / "tests.parquet")
    assert tests["p_value"].between(0, 1).all()
    assert np.isfinite(tests["log2_fold_change"]).all()
    # Hardly a gene has UMIs enough for "no effect seen" to mean something.
    de = read_labels(tmp_path / "de.parquet")
    counts = read_frame(tmp_path / "perturbations.parquet").set_index("perturbation")
    assert counts["n_unmeasured"].sum() > 0.99 * 20 * 2_000
    assert (de["label"] == 0).sum() == counts["n_not_de"].sum() < 100
    assert set(de["pert"]) == set(counts.index[counts[["n_up", "n_down", "n_not_de"]].sum(axis=1) > 0])
    assert de.drop_duplicates("pert")["split"].value_counts()["test"] == 5


@pytest.mark.parametrize("line", ["A172", "U87MG"])
def test_each_line_of_a_screen_of_three_is_labelled_by_itself(shared_data, tmp_path, capsys, line):
    path = path_of(shared_data, "mcfaline")
    arguments = ["label", str(path), "--out", str(tmp_path), "--only", f"cell_line={line}", "--json"]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    obs = anndata.read_h5ad(path).obs
    sizes = obs[obs["cell_line"] == line]["perturbation"].astype(str).value_counts()
    assert rows["screens"]["cells"] == sizes.sum()
    kept = sizes.drop(CONTROL)[lambda n: n >= 25]
    assert rows["quality"]["kept"] == len(kept) >= 4
    assert set(read_frame(tmp_path / "tests.parquet")["pert"].astype(str)) == set(kept.index)
    # Nothing responds in these few cells: there are pairs labelled 0 and none with a direction.
    assert set(read_labels(tmp_path / "de.parquet")["label"]) == {0}
    assert read_frame(tmp_path / "dir.parquet").empty
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.usefixtures("no_report")
def test_guides_can_take_the_place_of_perturbations(shared_data, tmp_path, capsys):
    path = path_of(shared_data, "papalexi")
    controls = anndata.read_h5ad(path).obs.query("perturbation == @CONTROL")["guide_id"].astype(str).unique()
    keys = ["--perturbation-key", "guide_id", "--control", ",".join(controls)]
    assert main(["label", str(path), "--out", str(tmp_path), *keys, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows["quality"]["perturbations"] == 97
    perturbations = read_frame(tmp_path / "perturbations.parquet")
    small = perturbations[perturbations["n_cells"] < 25]
    assert len(small) > 0
    assert (small["status"] == "excluded").all()
    assert small["reason"].str.contains("fewer than 25").all()
