"""A data folder of small tables: a simulated screen, its knowledge, label tables, clusters of genes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd

from tasks.screens.simulate import Simulated, simulate_screen


def make_small_data(folder: Path) -> None:
    """Screen ``small``, label tables ``tables/line``, knowledge ``known``, and two lists of genes."""
    size = {"cells": 2400, "genes": 100, "perturbations": 40, "controls": 400}
    made = simulate_screen(folder / "small.h5ad", **size, seed=5)
    _label_tables(made.truth, folder / "tables")
    _clusters(made, folder)
    (folder / "sets.json").write_text(json.dumps({"some": ["GENE1", "GENE2"]}))


def _label_tables(truth: Path, folder: Path) -> None:
    """``line-de.parquet`` and ``line-dir.parquet`` from planted effects; a quarter of the rows is test."""
    effects = pd.read_parquet(truth).query("pert != gene")
    perturbations, genes = sorted(set(effects["pert"])), sorted(set(effects["gene"]))
    split = {pert: "test" if at % 4 == 0 else "train" for at, pert in enumerate(perturbations)}
    large = effects[effects["true_log2_fold_change"].abs() > 0.5]
    changed = set(zip(effects["pert"], effects["gene"], strict=True))
    others = [(pert, gene, 0) for pert in perturbations for gene in genes[:40] if (pert, gene) not in changed]
    others = pd.DataFrame(others, columns=["pert", "gene", "label"]).query("pert != gene")
    tables = {
        "de": pd.concat([large.assign(label=1), others]),
        "dir": large.assign(label=(large["true_log2_fold_change"] > 0).astype(int)),
    }
    folder.mkdir()
    for task, table in tables.items():
        table = table.assign(split=table["pert"].map(split))
        table[["pert", "gene", "label", "split"]].to_parquet(folder / f"line-{task}.parquet")


def _clusters(made: Simulated, folder: Path) -> None:
    """``clusters.json``, and a knowledge folder ``known`` with a named term for each cluster."""
    knowledge = shutil.copytree(made.knowledge, folder / "known")
    effects = pd.read_parquet(made.truth).query("pert != gene")
    after = effects[effects["true_log2_fold_change"].abs() > 0.5].groupby("pert")["gene"].agg(list).head(3)
    clusters = [{"genes": genes, "label": f"genes after {pert}"} for pert, genes in after.items()]
    (folder / "clusters.json").write_text(json.dumps(clusters))
    terms = [(gene, f"GO:{at}", "go_bp") for at, genes in enumerate(after) for gene in genes]
    columns = ["source_gene", "target", "relation"]
    pd.DataFrame(terms, columns=columns).to_parquet(knowledge / "gene_go_simulated.parquet")
    names = [(f"GO:{at}", f"genes after {pert}") for at, pert in enumerate(after.index)]
    pd.DataFrame(names, columns=["term_id", "name"]).to_parquet(knowledge / "terms_go.parquet")
