"""One file's links under current symbols, each once: what goes into the store, and what does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.knowledge.gene_names import GeneNames
from tasks.knowledge.sources.protocol import GENE_GENE, Links


@dataclass(frozen=True, eq=False)
class Merged:
    """The links of one file as the store has them.

    Attributes
    ----------
    frame
        ``source``, ``target``, ``relation``, ``kind``, ``evidence`` as categories and ``score``; a link
        between genes stands once, under the name that comes first; the highest score and all evidence stay.
    relations
        Rows of each relation in the file, before any was merged.
    unresolved
        ``name`` and ``links``: names that lead to no current symbol, and rows that have them.
    dropped
        Why rows were left out, and how many for each reason; merged rows are among them.
    """

    frame: pd.DataFrame
    relations: Mapping[str, int]
    unresolved: pd.DataFrame
    dropped: Mapping[str, int]


def merge_links(links: Links, names: GeneNames, *, keeps_unknown: bool) -> Merged:
    """Resolve the genes' names and merge rows that say the same.

    With ``keeps_unknown`` names that lead nowhere stay as they are; else their rows are left out.
    """
    frame = links.frame
    between_genes = frame["kind"].iloc[0] == GENE_GENE if len(frame) else False
    columns = ["source", "target"] if between_genes else ["source"]
    found = _resolved(links, columns, names=names, keeps_unknown=keeps_unknown)
    codes = {column: found.codes[column][frame[column].cat.codes.to_numpy()] for column in columns}
    kept = np.logical_and.reduce([at >= 0 for at in codes.values()])
    targets = found.symbols
    if not between_genes:
        targets = pd.Index(sorted(frame["target"].cat.categories), dtype=object)
        codes["target"] = targets.get_indexer(frame["target"].cat.categories)[
            frame["target"].cat.codes.to_numpy()
        ]
    source, target = codes["source"][kept], codes["target"][kept]
    if between_genes:
        source, target = np.minimum(source, target), np.maximum(source, target)
    rows = frame[kept]
    relation, score = rows["relation"].cat.codes.to_numpy(), rows["score"].to_numpy()
    order, first = _order(source, target, relation=relation, score=score)
    merged = rows.iloc[order[first]].reset_index(drop=True)
    merged["source"] = pd.Categorical.from_codes(source[order][first], categories=found.symbols)
    merged["target"] = pd.Categorical.from_codes(target[order][first], categories=targets)
    merged["evidence"] = _evidence(rows["evidence"].iloc[order], first)
    counts = frame["relation"].value_counts()
    dropped = {**links.dropped, "unresolved": int((~kept).sum()), "repeated": len(rows) - len(merged)}
    return Merged(
        frame=merged,
        relations={str(name): int(n) for name, n in sorted(counts.items()) if n},
        unresolved=found.unresolved,
        dropped={reason: n for reason, n in dropped.items() if n},
    )


@dataclass(frozen=True, eq=False)
class _Resolved:
    symbols: pd.Index
    codes: Mapping[str, np.ndarray]
    unresolved: pd.DataFrame


def _resolved(links: Links, columns: list[str], *, names: GeneNames, keeps_unknown: bool) -> _Resolved:
    """Symbols, sorted, and for the categories of some columns their places among them (-1: none)."""
    rows: dict[str, int] = {}
    for column in columns:
        for name, n in links.frame[column].value_counts().items():
            rows[name] = rows.get(name, 0) + int(n)
    used = sorted(name for name, n in rows.items() if n)
    found = dict(zip(used, names.resolve(used, links.ids), strict=True))
    lost = [name for name in used if found[name] is None]
    if keeps_unknown:
        found |= {name: name for name in lost}
    symbols = pd.Index(sorted({symbol for symbol in found.values() if symbol is not None}), dtype=object)
    codes = {
        column: symbols.get_indexer([found.get(name) for name in links.frame[column].cat.categories])
        for column in columns
    }
    if names.genes is None and keeps_unknown:
        lost = []
    unresolved = pd.DataFrame({"name": lost, "links": [rows[name] for name in lost]})
    return _Resolved(symbols, codes, unresolved.astype({"name": object, "links": np.int64}))


def _order(
    source: np.ndarray, target: np.ndarray, *, relation: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The order by relation and link, best score first, and where in it a link is there first."""
    # A score that is not known comes after those that are.
    order = np.lexsort((-np.nan_to_num(score, nan=-np.inf), target, source, relation))
    keys = np.stack([column[order] for column in (relation, source, target)])
    first = np.ones(len(order), dtype=bool)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return order, first


def _evidence(evidence: pd.Series, first: np.ndarray) -> pd.Categorical:
    """All evidence of each link, sorted, with bars between; most links have one kind only."""
    categories = evidence.cat.categories
    if len(categories) <= 1:
        return pd.Categorical(evidence[first])
    kinds = pd.DataFrame({"link": np.cumsum(first) - 1, "evidence": evidence.astype(object).to_numpy()})
    kinds = kinds.drop_duplicates()
    named = kinds[kinds["evidence"] != ""].sort_values(["link", "evidence"])
    several = named["link"].duplicated(keep=False)
    texts = pd.Series("", index=np.arange(int(first.sum())), dtype=object)
    texts[named["link"][~several]] = named["evidence"][~several].to_numpy()
    joined = named[several].groupby("link")["evidence"].agg("|".join)
    texts[joined.index] = joined.to_numpy()
    return pd.Categorical(texts)
