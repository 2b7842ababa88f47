"""What is written of genes and terms: full names and summaries by symbol, names of terms by id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from storage.tables import read_frame

TEXT_COLUMNS = ("gene", "description", "source")
#: Where a gene's summary is taken from, the better source first; the second is the first with annotations.
SUMMARIES = ("refseq_summary", "ncbi_gene_summary_playdata")
NAMES = "hgnc_name"


def names_and_summaries(texts: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """Each gene's name ("full name | gene group: a; b | locus type") and summary, of those on record.

    Parameters
    ----------
    texts
        Rows of `TEXT_COLUMNS` in any order; those of other sources are not looked at.
    """
    by_source = {
        source: dict(zip(rows["gene"], rows["description"].astype(str), strict=True))
        for source, rows in texts.groupby("source")
    }
    summaries: dict[str, str] = {}
    for source in reversed(SUMMARIES):
        summaries |= by_source.get(source, {})
    return by_source.get(NAMES, {}), summaries


def term_names(tables: Iterable[Path]) -> dict[str, str]:
    """Names of terms by id, from tables with ``term_id`` and ``name``; other tables are not looked at.

    Of a term that several tables name, the name in the last of them by path.
    """
    names: dict[str, str] = {}
    for path in sorted(tables):
        frame = read_frame(path)
        if {"term_id", "name"} <= set(frame.columns):
            # WikiPathways' names go on with release, id and species.
            plain = frame["name"].astype(str).str.partition("%")[0].str.strip()
            names |= dict(zip(frame["term_id"], plain, strict=True))
    return names
