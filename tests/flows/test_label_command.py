from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

import flows.commands.label
import flows.label_stages
import flows.rule_stages
from flows.__main__ import main
from storage.atomic import write_json
from storage.manifest import file_digest
from storage.screens import Screen
from storage.tables import read_frame, read_labels, read_recipe
from tests.screens import CONTROL

TABLES = ("tests", "null", "guides", "de", "dir", "perturbations")
KEYS = ["--guide-key", "guide_id", "--batch-key", "batch"]


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    path = tmp_path_factory.mktemp("screen") / "small.h5ad"
    sizes = [
        "--cells",
        "2500",
        "--genes",
        "120",
        "--perturbations",
        "16",
        "--seed",
        "4",
        "--mean-umis",
        "400",
    ]
    assert main(["simulate", str(path), *sizes, "--json"]) == 0
    return path


@pytest.fixture(scope="module")
def labelled(screen, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled") / "new" / "out"
    assert main(["label", str(screen), "--out", str(out), *KEYS]) == 0
    return out


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """Most of a small run's time is the drawing of its report, which `labelled` has drawn once."""
    monkeypatch.setattr(flows.commands.label, "label_report", lambda path, _: write_json(path, {}))


def label(screen, out, *more, keys=KEYS):
    return main(["label", str(screen), "--out", str(out), *keys, *more])


def tables_of(out):
    return {
        path.name: file_digest(path)
        for path in out.iterdir()
        if path.suffix in {".parquet", ".h5ad", ".json"} and not path.name.startswith(".")
    }


def test_every_table_and_the_report_are_written(labelled):
    names = {path.name for path in labelled.iterdir() if not path.name.startswith(".")}
    expected = {f"{name}.parquet" for name in TABLES} | {"pseudobulk.h5ad", "calibration.json", "report.html"}
    assert names == expected
    assert (labelled / "report.html").stat().st_size > 10_000


def test_tests_are_scipys_on_the_screens_counts(screen, labelled):
    import anndata

    table = anndata.read_h5ad(screen)
    counts = table.X.toarray().astype(np.float64)
    values = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = table.obs["perturbation"].astype(str).to_numpy()
    tests = read_frame(labelled / "tests.parquet").astype({"pert": str})
    assert tests["pert"].nunique() == 16
    for name, rows in tests.groupby("pert"):
        expected = mannwhitneyu(values[names == name], values[names == CONTROL], method="asymptotic", axis=0)
        np.testing.assert_array_equal(rows["u_statistic"], expected.statistic)
        np.testing.assert_allclose(rows["p_value"], expected.pvalue, rtol=1e-12, atol=0)


def test_the_recipe_says_how_each_table_was_made(labelled):
    recipe = read_recipe(labelled / "tests.parquet")
    assert recipe["test"] == "wilcoxon"
    assert recipe["ties"] == "corrected"
    assert recipe["continuity"] is True
    assert recipe["normalise"] == "library"
    assert recipe["fdr"] == "Benjamini-Hochberg within a perturbation"
    assert len(recipe["screen"]) == 64
    for task in ("de", "dir"):
        recipe = read_recipe(labelled / f"{task}.parquet")
        assert (recipe["task"], recipe["label_seed"], recipe["test_share"]) == (task, 0, 0.25)
        assert {
            "fdr",
            "min_log2_fold_change",
            "negative_min_p",
            "max_positives",
            "negatives",
        } <= recipe.keys()
        assert len(recipe["tests"]) == 64


def test_the_order_of_cells_and_genes_and_the_number_of_workers_change_no_label(screen, labelled, tmp_path):
    import anndata

    table = anndata.read_h5ad(screen)
    rng = np.random.default_rng(0)
    shuffled = table[rng.permutation(table.n_obs), rng.permutation(table.n_vars)].copy()
    shuffled.write_h5ad(tmp_path / "shuffled.h5ad")
    assert label(tmp_path / "shuffled.h5ad", tmp_path / "out", "--workers", "1") == 0
    for name in ("de", "dir"):
        frames = [read_labels(out / f"{name}.parquet") for out in (tmp_path / "out", labelled)]
        pd.testing.assert_frame_equal(*frames)


def test_another_place_and_other_workers_give_the_same_bytes(screen, labelled, tmp_path):
    assert label(screen, tmp_path / "out", "--workers", "1") == 0
    assert tables_of(tmp_path / "out") == tables_of(labelled)


def test_a_dense_file_and_another_name_give_the_same_labels(screen, labelled, tmp_path):
    import anndata

    table = anndata.read_h5ad(screen)
    table.X = table.X.toarray().astype(np.int64)
    table.obs = table.obs.rename(
        columns={"perturbation": "gene", "guide_id": "sgID_AB", "batch": "gem_group"}
    )
    table.write_h5ad(tmp_path / "dense.h5ad")
    keys = ["--perturbation-key", "gene", "--guide-key", "sgID_AB", "--batch-key", "gem_group"]
    assert label(tmp_path / "dense.h5ad", tmp_path / "out", keys=keys) == 0
    for name in ("tests", "null", "de", "dir", "perturbations"):
        one, other = (read_frame(out / f"{name}.parquet") for out in (tmp_path / "out", labelled))
        pd.testing.assert_frame_equal(one, other)


def test_a_second_run_computes_nothing_and_other_label_options_only_the_labels(
    screen, labelled, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    assert label(screen, out) == 0
    before = tables_of(out)
    computed = []

    def counted(module, name):
        original = getattr(module, name)

        def call(*arguments, **options):
            computed.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    for name in ("ingest_screen", "check_quality", "compare_expression", "pseudobulk"):
        counted(flows.label_stages, name)
    for name in ("guide_agreement", "make_labels"):
        counted(flows.rule_stages, name)
    assert label(screen, out) == 0
    assert computed == []
    assert tables_of(out) == before
    assert label(screen, out, "--negatives", "5") == 0
    assert computed == ["make_labels"]
    changed = {name for name, digest in tables_of(out).items() if digest != before[name]}
    assert "de.parquet" in changed
    assert changed.isdisjoint({"tests.parquet", "null.parquet", "pseudobulk.h5ad"})
    assert (read_labels(out / "de.parquet")["label"] == 0).sum() == 16 * 5
    computed.clear()
    assert label(screen, out, "--force") == 0
    assert set(computed) == {
        "ingest_screen",
        "check_quality",
        "compare_expression",
        "pseudobulk",
        "guide_agreement",
        "make_labels",
    }
    assert tables_of(out) == before


def test_a_run_stopped_between_blocks_goes_on_and_gives_the_same_bytes(
    screen, labelled, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    whole = Screen.gene_blocks
    monkeypatch.setattr(Screen, "gene_blocks", lambda self: whole(self, most_genes=30))
    put_together = flows.label_stages.compare_expression

    def stopped(*arguments, **options):
        def stop(done, total):
            if done == 2:
                raise KeyboardInterrupt

        return put_together(*arguments, **(options | {"progress": stop}))

    with monkeypatch.context() as patched:
        patched.setattr(flows.label_stages, "compare_expression", stopped)
        assert label(screen, out) == 130
    assert not (out / "tests.parquet").exists()
    blocks = list(out.rglob("genes-*.npy"))
    assert 2 <= len(blocks) <= 4
    capsys.readouterr()
    assert label(screen, out) == 0
    assert f"testing: {len(blocks)} of 4 gene blocks" in capsys.readouterr().err
    assert tables_of(out) == tables_of(labelled)
    assert list(out.rglob("genes-*.npy")) == []


def test_json_is_all_that_is_printed(screen, tmp_path, capsys):
    assert label(screen, tmp_path / "out", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"]["screens"]["cells"] == 2500
    assert printed["rows"]["tests"]["tests.parquet"] == 16 * 120
    assert printed["rows"]["labels"]["de.parquet"] == len(read_labels(tmp_path / "out" / "de.parquet"))
    assert printed["calibration"]["null_perturbations"] >= 1


def test_the_tests_alone_are_the_same_table_and_nothing_is_left_beside_it(screen, labelled, tmp_path, capsys):
    out = tmp_path / "tests.parquet"
    assert main(["test-expression", str(screen), "--out", str(out), *KEYS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "out": str(out),
        "tests": 16 * 120,
        "perturbations": 16,
        "left_out": {},
    }
    assert out.read_bytes() == (labelled / "tests.parquet").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["tests.parquet"]


def test_excluded_perturbations_are_listed_with_the_reason_and_not_tested(screen, tmp_path):
    assert label(screen, tmp_path, "--min-cells", "130") == 0
    judged = read_frame(tmp_path / "perturbations.parquet")
    excluded = judged[judged["status"] == "excluded"]
    assert 0 < len(excluded) < len(judged)
    assert excluded["reason"].str.contains("fewer than 130").all()
    assert (excluded["split"] == "").all()
    tested = set(read_frame(tmp_path / "tests.parquet")["pert"].astype(str))
    assert tested == set(judged.loc[judged["status"] == "kept", "perturbation"])


def test_what_could_have_been_seen_is_asked_counted_and_recorded(screen, labelled, tmp_path):
    assert label(screen, tmp_path, "--detectable", "0") == 0
    shares = {}
    for out in (labelled, tmp_path):
        perturbations = read_frame(out / "perturbations.parquet")
        calibration = json.loads((out / "calibration.json").read_text())
        de = read_labels(out / "de.parquet")
        pairs = perturbations[["n_up", "n_down", "n_not_de", "n_uncertain", "n_unmeasured"]]
        assert pairs.to_numpy().sum() == 16 * 119
        assert calibration["pairs_not_de"] == perturbations["n_not_de"].sum()
        assert calibration["pairs_not_measured_well_enough"] == perturbations["n_unmeasured"].sum()
        tests = read_frame(out / "tests.parquet").astype({"pert": str, "gene": str})
        zeros = de[de["label"] == 0].merge(tests, on=["pert", "gene"])
        shares[out] = zeros["mean_control"].min()
    assert read_recipe(labelled / "de.parquet")["detectable"] == 1.0
    assert perturbations["n_unmeasured"].sum() == 0
    # Genes next to never seen are no zeros any more.
    assert shares[labelled] > 2 * shares[tmp_path]


def test_guides_that_agree_are_counted_as_pandas_counts_them(screen, labelled):
    import anndata

    table = anndata.read_h5ad(screen)
    counts = table.X.toarray().astype(np.float64)
    values = pd.DataFrame(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), columns=table.var_names)
    names = table.obs["perturbation"].astype(str).to_numpy()
    guides = table.obs["guide_id"].astype(str).to_numpy()
    control = values[names == CONTROL].mean()
    tests = read_frame(labelled / "tests.parquet").astype({"pert": str, "gene": str})
    de = tests[
        (tests["p_adj"] < 0.05) & (tests["log2_fold_change"].abs() >= 0.1) & (tests["pert"] != tests["gene"])
    ]
    judged = read_frame(labelled / "perturbations.parquet").set_index("perturbation")
    agreed = 0
    for name, rows in de.groupby("pert"):
        mine = values[names == name]
        means = mine.groupby(guides[names == name]).mean()
        assert judged.loc[name, "guides_compared"] == len(means) == 3
        side = np.sign(means[rows["gene"].tolist()] - control[rows["gene"].tolist()])
        agree = (side.sum().abs() == len(means)).sum()
        agreed += agree
        assert judged.loc[name, "guide_agreement"] == pytest.approx(agree / len(rows))
    calibration = json.loads((labelled / "calibration.json").read_text())
    assert calibration["guide_agreement"] == pytest.approx(agreed / len(de))
    assert calibration["guide_agreement_pairs"] == len(de)
    assert calibration["guide_agreement_not_de"] < calibration["guide_agreement"]


def test_without_guides_nothing_is_said_of_their_agreement(screen, tmp_path):
    assert label(screen, tmp_path, keys=[]) == 0
    assert json.loads((tmp_path / "calibration.json").read_text())["guide_agreement"] is None
    judged = read_frame(tmp_path / "perturbations.parquet")
    assert judged["guide_agreement"].isna().all()
    assert (judged["guides_compared"] == 0).all()


def test_gene_sets_get_tests_and_tables_of_their_own(screen, labelled, tmp_path, capsys):
    import anndata

    genes = list(anndata.read_h5ad(screen).var_names)
    sets = {"even": genes[::2], "ten": [*genes[:10], "elsewhere"], "tiny": genes[:2]}
    (tmp_path / "sets.json").write_text(json.dumps(sets))
    out = tmp_path / "out"
    assert label(screen, out, "--gene-sets", str(tmp_path / "sets.json"), "--json") == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows["set-tests"] == {"set-tests.parquet": 32, "sets": 2, "sets excluded": 1}
    tests, of_genes = read_frame(out / "set-tests.parquet"), read_frame(out / "tests.parquet")
    assert list(tests) == list(of_genes)
    table = read_frame(out / "gene-sets.parquet").set_index("gene_set")
    assert table.loc["tiny", "reason"] == "2 of 2 genes measured, fewer than 5"
    assert table.loc["ten", "missing"].startswith("elsewhere")
    de, genes_de = read_labels(out / "set-de.parquet"), read_labels(out / "de.parquet")
    assert set(de["gene"]) == {"even", "ten"}
    side = genes_de.drop_duplicates("pert").set_index("pert")["split"]
    assert (de["split"].to_numpy() == side[de["pert"]].to_numpy()).all()
    changed = {name: digest for name, digest in tables_of(out).items() if name in tables_of(labelled)}
    assert changed == tables_of(labelled)
    assert "set_null_de_calls" in json.loads((out / "set-calibration.json").read_text())
    # Without sets, tables of an earlier run do not stay.
    assert label(screen, out) == 0
    assert not list(out.glob("*set*"))


def test_gene_sets_that_cannot_be_used_are_refused_before_anything_is_read(screen, tmp_path, capsys):
    (tmp_path / "sets.json").write_text('{"a": ["elsewhere"]}')
    assert label(screen, tmp_path / "out", "--gene-sets", str(tmp_path / "none.json")) == 1
    assert "none.json: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert label(screen, tmp_path / "out", "--gene-sets", str(tmp_path / "sets.json")) == 1
    assert "set 'a': 0 of 1 genes measured, fewer than 5" in capsys.readouterr().err
    sets = ["--gene-sets", str(tmp_path / "sets.json"), "--test", "pseudobulk"]
    assert label(screen, tmp_path / "out", *sets) == 1
    assert "'pseudobulk' compares no scores of cells" in capsys.readouterr().err


def test_labels_of_the_simulated_screen_mostly_agree_with_its_truth(screen, labelled):
    truth = read_frame(screen.with_suffix(".truth.parquet"))
    planted = set(zip(truth["pert"], truth["gene"], strict=True))
    de = read_labels(labelled / "de.parquet")
    true = np.array([pair in planted for pair in zip(de["pert"], de["gene"], strict=True)])
    positive = (de["label"] == 1).to_numpy(bool)
    assert positive.sum() > 50
    assert true[positive].mean() > 0.8
    assert true[~positive].mean() < true[positive].mean() / 2
    direction = read_labels(labelled / "dir.parquet").merge(truth, on=["pert", "gene"])
    assert ((direction["label"] == 1) == (direction["true_log2_fold_change"] > 0)).mean() > 0.95
