"""BioGRID in its tab3 format: physical and genetic interactions."""

from __future__ import annotations

import re
from typing import ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tasks.knowledge.sources.delimited import CATEGORY, column_problems, renamed, stream_columns
from tasks.knowledge.sources.protocol import GENE_GENE, HUMAN, Links, Reading, link_frame, release_in
from tasks.knowledge.sources.source_file import SourceFile

SIDES = ("A", "B")


class BioGrid:
    """Interactions of human genes with human genes, with the experimental system as evidence."""

    name: ClassVar[str] = "biogrid"
    title: ClassVar[str] = "BioGRID tab3"
    # The archive by organism holds a file a species, of which only the human one is of use.
    files: ClassVar[re.Pattern] = re.compile(r"biogrid-(?!organism-(?!homo_sapiens)).*tab3")
    beside: ClassVar[re.Pattern | None] = None
    columns: ClassVar[tuple[str, ...]] = (
        *(f"{what} Interactor {side}" for what in ("Entrez Gene", "Official Symbol") for side in ("A", "B")),
        *(f"Organism ID Interactor {side}" for side in ("A", "B")),
        "Experimental System",
        "Experimental System Type",
    )
    delimiter: ClassVar[str] = "\t"
    keeps_unknown: ClassVar[bool] = False

    def database(self, file: SourceFile) -> str:
        """BioGRID."""
        return "biogrid"

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """Look at the first line."""
        return column_problems(file, self.columns, self.delimiter)

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Stream the rows in which both genes are human."""
        frame, read = stream_columns(file, dict.fromkeys(self.columns, CATEGORY), keep=_both_human)
        source, target = (renamed(frame[f"Official Symbol Interactor {side}"], str.strip) for side in SIDES)
        relation = renamed(frame["Experimental System Type"], lambda kind: f"biogrid_{kind.strip().lower()}")
        evidence = renamed(frame["Experimental System"], str.strip)
        links = link_frame(source, target, relation=relation, kind=GENE_GENE, evidence=evidence)
        dropped = {"other species": read - len(frame)}
        return Links(links, read, dropped, _entrez_ids(frame), release=release_in(file.stem))


def _both_human(batch: pa.RecordBatch) -> pa.Array:
    sides = [pc.equal(pc.cast(batch[f"Organism ID Interactor {side}"], pa.string()), HUMAN) for side in SIDES]
    return pc.and_(*sides)


def _entrez_ids(frame: pd.DataFrame) -> dict[str, str]:
    ids: dict[str, str] = {}
    for side in SIDES:
        columns = [f"Official Symbol Interactor {side}", f"Entrez Gene Interactor {side}"]
        pairs = frame[columns].drop_duplicates().astype(str)
        ids |= {name.strip(): f"entrez:{gene}" for name, gene in pairs.itertuples(index=False)}
    return ids
