"""What is written of genes: full names and summaries, by symbol."""

from __future__ import annotations

import pandas as pd

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
