"""Where predictors err: the score of the same test pairs, cut by what may make them easy or hard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tasks.knowledge.graph import KnowledgeGraph
from tasks.predictors.kernels.similarity import GeneSimilarity
from tasks.report import drawing
from tasks.report.page import Section
from tasks.scoring.metrics import auroc_per_gene
from tasks.scoring.task_names import TASK_HEADINGS

COLOURS = (drawing.BLUE, drawing.VERMILLION, drawing.GREEN, drawing.SKY, drawing.GREY, drawing.BLACK)
MARKERS = ("o", "D", "s", "^", "v", "P")
#: Parts a trait is cut into, by its quantiles over what was scored.
PARTS = 4
#: Factors of the similarity, enough to tell near from far.
FACTORS = 64

TITLES = {
    "positives": "Test pairs of the gene that are labelled 1",
    "gene_degree": "Links of the gene in the knowledge graph",
    "pert_degree": "Links of the perturbed gene in the knowledge graph",
    "distance": "Distance from the nearest training perturbation",
}


@dataclass(frozen=True, eq=False)
class PairTraits:
    """What is known beforehand of a label table's genes and test perturbations.

    Attributes
    ----------
    gene_degree, pert_degree
        Gene-gene links in the graph by name; 0 where the graph does not know the name.
    distance
        By perturbation: 1 - similarity (mean of the cosines of tf-idf vectors and of their factors) to the
        most similar perturbation of the training split; 1 where the graph knows nothing of it.
    """

    gene_degree: pd.Series
    pert_degree: pd.Series
    distance: pd.Series

    @classmethod
    def of(cls, labels: pd.DataFrame, graph: KnowledgeGraph) -> Self:
        """Look the names of a label table (``pert``, ``gene``, ``split``) up in the graph."""
        test = labels[labels["split"] == "test"]
        genes, perts = (np.unique(test[name].to_numpy(dtype=str)) for name in ("gene", "pert"))
        seen = np.unique(labels.loc[labels["split"] == "train", "pert"].to_numpy(dtype=str))
        near = GeneSimilarity.build(graph, n_factors=FACTORS).between(perts, seen)
        nearest = near.max(axis=1) if len(seen) else np.zeros(len(perts))
        return cls(
            gene_degree=pd.Series(_degrees(graph, genes), index=genes),
            pert_degree=pd.Series(_degrees(graph, perts), index=perts),
            distance=pd.Series(1 - nearest.astype(np.float64), index=perts),
        )


def auroc_by_trait(scored: pd.DataFrame, traits: PairTraits) -> pd.DataFrame:
    """AUROC per gene, averaged over genes, in each part of each trait.

    A trait of genes picks the genes that are averaged; a trait of perturbations picks the pairs that each
    gene's AUROC is taken over, and genes left with one class are left out there.

    Parameters
    ----------
    scored
        ``pert``, ``gene``, ``label`` and ``score`` of the test pairs.

    Returns
    -------
    DataFrame
        ``trait``, ``low``, ``high`` (the part's limits, both included), ``auroc``, ``n_genes`` and
        ``standard_error`` (of the mean over genes), in the order of the parts. Parts that would hold the same
        values are one.
    """
    per_gene = auroc_per_gene(scored).dropna(subset="auroc").set_index("gene")
    rows = []
    for trait, values in (("positives", per_gene["n_positive"]), ("gene_degree", traits.gene_degree)):
        for low, high, names in _parts(values.reindex(per_gene.index)):
            rows.append((trait, low, high, *_mean(per_gene.loc[names, "auroc"])))
    perts = pd.unique(scored["pert"])
    for trait in ("pert_degree", "distance"):
        for low, high, names in _parts(getattr(traits, trait).reindex(perts)):
            auroc = auroc_per_gene(scored[scored["pert"].isin(names)])["auroc"].dropna()
            rows.append((trait, low, high, *_mean(auroc)))
    return pd.DataFrame(rows, columns=["trait", "low", "high", "auroc", "n_genes", "standard_error"])


def error_section(
    task: str, scored_by_predictor: Mapping[str, pd.DataFrame], traits: PairTraits, *, name: str = ""
) -> Section:
    """The page's section on one task: a panel per trait, a line per predictor, and the figures as a table."""
    tables = {row: auroc_by_trait(scored, traits) for row, scored in scored_by_predictor.items()}
    told = pd.concat([table.assign(predictor=row) for row, table in tables.items()], ignore_index=True)
    told["part"] = [_span(row.low, row.high) for row in told.itertuples()]
    told["trait"] = told["trait"].map(TITLES)
    places = ["trait", "low", "part", "n_genes"]
    wide = told.pivot_table(index=places, columns="predictor", values="auroc", sort=False, dropna=False)
    wide = wide.dropna(how="all").reset_index().drop(columns="low")[["trait", "part", "n_genes", *tables]]
    caption = (
        "AUROC by properties of genes and perturbations\n"
        "How to read this: the upper panels divide the genes, the lower ones the perturbations, by one "
        "property into up to four parts. Where many have the same value they stay together, and parts are "
        "fewer and of unlike size. Each line is a predictor, the bars are twice the standard error over "
        "genes. Where a line is low, the predictor does worse on such pairs."
    )
    return Section(
        ", ".join(part for part in (name, TASK_HEADINGS[task]) if part),
        figures=[(caption, error_figure(tables))],
        tables=[("AUROC by part", wide.rename(columns={"trait": "property", "n_genes": "genes"}), "")],
    )


def error_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """One panel per trait, one line per predictor, in the order given; six at most are drawn."""
    shown = list(tables)[: len(COLOURS)]
    figure, axes = drawing.new_figure(7.0, rows=2, columns=2)
    for ax, (trait, title) in zip(axes.flat, TITLES.items(), strict=True):
        for place, row in enumerate(shown):
            part = tables[row][tables[row]["trait"] == trait]
            at = np.arange(len(part)) + 0.06 * (place - (len(shown) - 1) / 2)
            ax.errorbar(
                at,
                part["auroc"],
                yerr=2 * part["standard_error"],
                color=COLOURS[place],
                marker=MARKERS[place],
                markersize=5,
                linewidth=1.3,
                elinewidth=0.8,
                label=drawing.short_name(row),
            )
            names = [_span(low, high) for low, high in zip(part["low"], part["high"], strict=True)]
            ax.set_xticks(range(len(part)), names, fontsize=8)
        ax.set_ylim(max(0, ax.get_ylim()[0]), min(1.02, ax.get_ylim()[1]))
        ax.axhline(0.5, color=drawing.BLACK, linewidth=0.9, linestyle="--")
        drawing.label_axes(ax, x=title, y="AUROC per gene")
    handles, names = axes[0, 0].get_legend_handles_labels()
    drawing.key(
        figure, handles=handles, labels=names, loc="outside lower center", ncols=min(6, max(1, len(shown)))
    )
    return figure


def _degrees(graph: KnowledgeGraph, names: np.ndarray) -> np.ndarray:
    at = graph.resolve(names)
    return np.where(at >= 0, graph.degrees[at], 0)


def _parts(values: pd.Series) -> list[tuple[float, float, pd.Index]]:
    """Cut named values into parts of about equal size; equal values stay together."""
    values = values.dropna()
    if values.empty:
        return []
    parts = pd.qcut(values, PARTS, duplicates="drop") if values.nunique() > 1 else pd.Series(0, values.index)
    grouped = values.groupby(parts, observed=True)
    return [(float(part.min()), float(part.max()), part.index) for _, part in grouped]


def _mean(auroc: pd.Series) -> tuple[float, int, float]:
    spread = float(auroc.std(ddof=1) / np.sqrt(len(auroc))) if len(auroc) > 1 else np.nan
    return (float(auroc.mean()) if len(auroc) else np.nan), len(auroc), spread


def _span(low: float, high: float) -> str:
    def short(value: float) -> str:
        return (
            f"{value:,.0f}"
            if (float(value).is_integer() and abs(value) >= 1) or value == 0
            else f"{value:.2f}"
        )

    return short(low) if low == high else f"{short(low)}\u00a0to\u00a0{short(high)}"
