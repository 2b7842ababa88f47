"""`pqa predict` and `pqa score`, the contract that other programs rely on."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from flows.__main__ import main
from flows.commands.predict import other_lines
from flows.options import PredictCommandOptions
from storage.errors import InputError
from tasks.predictors.fitting import training_rows
from tests.flows.jobs import run_pqa


@pytest.fixture(scope="module")
def tables(small_screen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    run_pqa("label", small_screen, "--out", folder, "--guide-key", "guide_id", "--batch-key", "batch")
    return folder


@pytest.mark.parametrize("predictor", ["prior", "physical", "retrieval"])
def test_predictions_score_as_a_plain_loop_over_scikit_learn_says(tables, small_screen, tmp_path, predictor):
    out, knowledge = tmp_path / "predictions.parquet", small_screen.with_suffix(".knowledge")
    labels = tables / "de.parquet"
    words = ["--labels", labels, "--pairs", labels, "--knowledge", knowledge, "--predictor", predictor]
    run_pqa("predict", *words, "--out", out)
    predictions = pd.read_parquet(out)
    assert list(predictions.columns) == ["pert", "gene", "score"]
    words = ["--labels", labels, "--predictions", out, "--draws", "20"]
    figures = json.loads(run_pqa("score", *words, "--json"))
    rows = pd.read_parquet(labels).merge(predictions, on=["pert", "gene"])
    rows = rows[rows["split"] == "test"]
    by_gene = [g for _, g in rows.groupby("gene") if g["label"].nunique() == 2]
    expected = np.mean([roc_auc_score(g["label"].astype(int), g["score"]) for g in by_gene])
    assert figures["auroc"] == pytest.approx(expected, abs=1e-12)
    assert figures["n_genes"] == len(by_gene)
    assert figures["pooled_auroc"] == pytest.approx(roc_auc_score(rows["label"].astype(int), rows["score"]))


def test_test_labels_are_never_learnt_from(tables, small_screen, tmp_path):
    """Poisoned test labels leave every prediction as it was."""
    labels = pd.read_parquet(tables / "de.parquet")
    poisoned = labels.assign(label=labels["label"].where(labels["split"] == "train", 1 - labels["label"]))
    unknown = labels.assign(label=labels["label"].where(labels["split"] == "train"))
    scores = []
    for name, table in (("as-is", labels), ("poisoned", poisoned), ("unknown", unknown)):
        path, out = tmp_path / f"{name}.parquet", tmp_path / f"{name}-out.parquet"
        table.to_parquet(path)
        words = ["--labels", path, "--pairs", path, "--knowledge", small_screen.with_suffix(".knowledge")]
        run_pqa("predict", *words, "--predictor", "retrieval", "--out", out)
        scores.append(pd.read_parquet(out)["score"].to_numpy())
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


def test_csv_tables_and_other_lines_are_taken(tables, small_screen, tmp_path):
    labels = pd.read_parquet(tables / "de.parquet")
    labels.to_csv(tmp_path / "labels.csv", index=False)
    labels[["pert", "gene"]].head(10).to_csv(tmp_path / "pairs.csv", index=False)
    out = tmp_path / "p.parquet"
    words = [
        "--labels",
        tmp_path / "labels.csv",
        "--pairs",
        tmp_path / "pairs.csv",
        "--predictor",
        "retrieval",
    ]
    also = ["--also", tables / "de.parquet", "--knowledge", small_screen.with_suffix(".knowledge")]
    result = json.loads(run_pqa("predict", *words, *also, "--out", out, "--json"))
    assert result["pairs"] == 10
    assert result["genes_unknown_to_graph"] == 0
    assert pd.read_parquet(out)["pert"].tolist() == labels["pert"].head(10).tolist()


def test_other_lines_keep_a_name_of_their_own(tables, tmp_path):
    labels = pd.read_parquet(tables / "de.parquet")
    also = [tmp_path / name for name in ("one/de.csv", "two/de.csv", "x/rest.csv", "y/rest.csv", "own.csv")]
    for number, path in enumerate(also):
        path.parent.mkdir(exist_ok=True)
        labels.tail(-number - 1).to_csv(path, index=False)
    told = {"pairs": "-", "knowledge": "-", "predictor": "prior"}
    lines = other_lines(PredictCommandOptions(labels=tables / "de.parquet", also=also, **told))
    assert list(lines) == ["one", "two", str(also[2]), str(also[3]), str(also[4])]
    assert list(lines.values()) == also
    by_line = {line: str(path) for line, path in lines.items()}
    sources = training_rows(str(tables / "de.parquet"), by_line)["source"]
    assert set(sources) == {"own", *by_line}
    again = tmp_path / "again.parquet"
    again.write_bytes((tables / "de.parquet").read_bytes())
    with pytest.raises(InputError, match=r"again\.parquet: made of the same cells as"):
        other_lines(PredictCommandOptions(labels=tables / "de.parquet", also=[also[0], again], **told))


def test_score_names_every_problem_and_writes_nothing(tables, tmp_path, capsys):
    labels = pd.read_parquet(tables / "de.parquet")
    unknown = tmp_path / "unknown.parquet"
    labels.assign(label=labels["label"].where(labels["split"] == "train")).to_parquet(unknown)
    predictions = tmp_path / "few.parquet"
    labels[["pert", "gene"]].head(3).assign(score=0.5).to_parquet(predictions)
    assert main(["score", "--labels", str(unknown), "--predictions", str(predictions)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "label" in captured.err
    labels[["pert", "gene"]].assign(score=np.nan).to_parquet(predictions)
    assert main(["score", "--labels", str(tables / "de.parquet"), "--predictions", str(predictions)]) == 1
    assert "finite" in capsys.readouterr().err


def test_an_unknown_predictor_is_one_message(tables, small_screen, tmp_path, capsys):
    labels, out = str(tables / "de.parquet"), tmp_path / "p.parquet"
    words = [
        "--labels",
        labels,
        "--pairs",
        labels,
        "--knowledge",
        str(small_screen.with_suffix(".knowledge")),
    ]
    with pytest.raises(SystemExit) as ended:
        main(["predict", *words, "--predictor", "oracle", "--out", str(out)])
    assert ended.value.code == 2
    assert "oracle" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("draws", ["0", "19", "100001", "-3"])
def test_too_few_draws_for_an_interval_are_refused(capsys, draws):
    with pytest.raises(SystemExit) as stop:
        main(["score", "--labels", "l.parquet", "--predictions", "p.parquet", "--draws", draws])
    assert stop.value.code == 2
    assert "--draws: " in capsys.readouterr().err
