"""The benchmark's score: AUROC of each gene over its test perturbations, averaged over genes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from storage.errors import InputError
from tasks.scoring.ranking import checked_columns, rank_pairs, weighted_auroc


@dataclass(frozen=True)
class Scores:
    """The scores of one predictor on one label table.

    Attributes
    ----------
    auroc
        Mean AUROC over the genes that have positives and negatives; NaN if there is no such gene.
    n_genes, n_genes_dropped
        Genes averaged, and genes left out because all their pairs have the same label.
    pooled_auroc, pooled_auprc
        AUROC and average precision over all pairs together; NaN if all pairs have the same label.
    n_pairs, n_perturbations
        What was scored.
    positive_rate
        Share of pairs with label 1, which is the average precision of guessing; NaN without pairs.
    """

    auroc: float
    n_genes: int
    n_genes_dropped: int
    pooled_auroc: float
    pooled_auprc: float
    n_pairs: int
    n_perturbations: int
    positive_rate: float

    def as_dict(self) -> dict[str, float | int]:
        """The scores as plain numbers, ready for JSON or MLflow."""
        return asdict(self)


def auroc_per_gene(scored: pd.DataFrame) -> pd.DataFrame:
    """AUROC of each gene over its perturbations, ties counted half.

    Parameters
    ----------
    scored
        ``pert``, ``gene``, ``label`` (0/1) and ``score``; higher = more likely 1.

    Returns
    -------
    DataFrame
        ``gene`` (sorted), ``auroc`` (NaN for a gene with one class only), ``n_positive``, ``n_negative``.

    Raises
    ------
    InputError
        If a column is missing, a label is not 0/1 or a score is not finite.
    """
    ranked = rank_pairs(scored)
    auroc, positives, negatives = weighted_auroc(ranked, np.ones((ranked.n_perturbations, 1)))
    return pd.DataFrame(
        {
            "gene": ranked.genes,
            "auroc": auroc[:, 0],
            "n_positive": positives[:, 0].astype(np.int64),
            "n_negative": negatives[:, 0].astype(np.int64),
        }
    )


def score_summary(scored: pd.DataFrame) -> Scores:
    """All scores of one predictor.

    Parameters
    ----------
    scored
        As in :func:`auroc_per_gene`.

    Raises
    ------
    InputError
        As in :func:`auroc_per_gene`.
    """
    per_gene = auroc_per_gene(scored)["auroc"]
    label, score = checked_columns(scored)
    used = per_gene.notna()
    one_class = len(np.unique(label)) < 2
    return Scores(
        auroc=float(per_gene[used].mean()),
        n_genes=int(used.sum()),
        n_genes_dropped=int((~used).sum()),
        pooled_auroc=np.nan if one_class else float(roc_auc_score(label, score)),
        pooled_auprc=np.nan if one_class else float(average_precision_score(label, score)),
        n_pairs=len(scored),
        n_perturbations=int(scored["pert"].nunique()),
        positive_rate=float(label.mean()) if len(label) else np.nan,
    )


def join_predictions(labels: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Give each test pair of a label table its score.

    Parameters
    ----------
    labels
        ``pert``, ``gene``, ``label`` (0, 1 or missing) and ``split``; only rows with split 'test' are used.
    predictions
        ``pert``, ``gene``, ``score``. Pairs that are not test pairs of the table are ignored.

    Returns
    -------
    DataFrame
        ``pert``, ``gene``, ``label`` (int8) and ``score`` (float64), in the order of the label table.

    Raises
    ------
    InputError
        Listing all that is wrong: no test rows, unknown test labels, pairs without a finite score, pairs
        predicted more than once.
    """
    test = labels.loc[labels["split"].astype(str) == "test", ["pert", "gene", "label"]]
    if test.empty:
        raise InputError("labels", ["no rows with split 'test': nothing to score"])
    keys = ["pert", "gene"]
    offered = predictions[[*keys, "score"]].astype({"pert": object, "gene": object, "score": np.float64})
    repeated = offered.duplicated(keys)
    joined = test.astype({"pert": object, "gene": object}).merge(offered[~repeated], on=keys, how="left")
    unscored = joined[~np.isfinite(joined["score"])]
    problems = _label_problems(joined["label"])
    if len(unscored):
        problems.append(
            f"{len(unscored):,} of {len(joined):,} test pairs have no finite score, for example "
            f"{unscored.iloc[0].pert}, {unscored.iloc[0].gene}; every test pair must be predicted"
        )
    if repeated.any():
        first = offered[repeated].iloc[0]
        problems.append(
            f"{int(repeated.sum()):,} pairs are predicted more than once, "
            f"for example {first.pert}, {first.gene}"
        )
    if problems:
        raise InputError("scoring predictions against labels", problems)
    return joined.astype({"label": np.int8})


def _label_problems(label: pd.Series) -> list[str]:
    unknown = int(label.isna().sum())
    if unknown == len(label):
        return [
            f"the labels of all {unknown:,} test pairs are not known: "
            "this table can be predicted but not scored"
        ]
    if unknown:
        return [
            f"the labels of {unknown:,} of {len(label):,} test pairs are missing; "
            "give them or leave those pairs out"
        ]
    return []
