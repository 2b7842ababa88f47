"""BioPlex 3: interactions by affinity purification, a table a cell line."""

from __future__ import annotations

import re
from typing import ClassVar

import pyarrow as pa

from tasks.knowledge.sources.delimited import (
    CATEGORY,
    column_problems,
    columns_of,
    renamed,
    stream_columns,
)
from tasks.knowledge.sources.protocol import GENE_GENE, Links, Reading, link_frame, release_in
from tasks.knowledge.sources.source_file import SourceFile

CELL_LINES = re.compile(r"293t|hct116")


class BioPlex:
    """Pairs with the probability of an interaction (``pInt``) as score and the cell line as evidence."""

    name: ClassVar[str] = "bioplex"
    title: ClassVar[str] = "BioPlex 3 network"
    files: ClassVar[re.Pattern] = re.compile(r"bioplex.*\.(tsv|txt)(\.gz)?$")
    beside: ClassVar[re.Pattern | None] = None
    columns: ClassVar[tuple[str, ...]] = ("SymbolA", "SymbolB", "pInt")
    delimiter: ClassVar[str] = "\t"
    keeps_unknown: ClassVar[bool] = False

    def database(self, file: SourceFile) -> str:
        """BioPlex."""
        return "bioplex"

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """Look at the first line."""
        return column_problems(file, self.columns, self.delimiter)

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Read all rows; all of BioPlex is human."""
        ids = [column for column in ("GeneA", "GeneB") if column in columns_of(file, self.delimiter)]
        types = {"SymbolA": CATEGORY, "SymbolB": CATEGORY, "pInt": pa.float32()}
        frame, read = stream_columns(file, types | dict.fromkeys(ids, CATEGORY), quoted=True)
        source, target = (renamed(frame[column], str.strip) for column in ("SymbolA", "SymbolB"))
        line = CELL_LINES.search(file.own_name.lower())
        links = link_frame(
            source,
            target,
            relation="bioplex_interacts",
            kind=GENE_GENE,
            score=frame["pInt"].to_numpy(),
            evidence=line.group().upper() if line else "",
        )
        entrez: dict[str, str] = {}
        for column in ids:
            pairs = frame[[f"Symbol{column[-1]}", column]].drop_duplicates().astype(str)
            entrez |= {name.strip(): f"entrez:{gene}" for name, gene in pairs.itertuples(index=False)}
        return Links(links, read, ids=entrez, release=release_in(file.stem))
