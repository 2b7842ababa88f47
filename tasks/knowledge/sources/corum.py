"""CORUM: protein complexes and their subunits, non-commercial."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from storage.errors import InputError
from tasks.knowledge.sources.delimited import columns_of
from tasks.knowledge.sources.protocol import GENE_TERM, Links, Reading, link_frame, release_in
from tasks.knowledge.sources.source_file import SourceFile

#: What is read, by its name in lower case up to release 4 and from release 5 on.
FIELDS = {
    "id": ("complexid", "complex_id"),
    "name": ("complexname", "complex_name"),
    "organism": ("organism",),
    "genes": ("subunits(gene name)", "subunits_gene_name"),
}
RECORD = re.compile(r'"?\d+"?\t')
HUMAN_NAME = "human"


class Corum:
    """Genes to the complexes they are in."""

    name: ClassVar[str] = "corum"
    title: ClassVar[str] = "CORUM complexes"
    files: ClassVar[re.Pattern] = re.compile(r"(all|core|splice|human)_?complexes|corum.*\.(txt|tsv)")
    beside: ClassVar[re.Pattern | None] = None
    columns: ClassVar[tuple[str, ...]] = ()
    delimiter: ClassVar[str] = "\t"
    keeps_unknown: ClassVar[bool] = False

    def database(self, file: SourceFile) -> str:
        """CORUM."""
        return "corum"

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """Look at the first line."""
        found = columns_of(file, self.delimiter)
        if not found:
            return ["the file is empty"]
        missing = [" or ".join(names) for role, names in FIELDS.items() if _place(found, role) < 0]
        shown = ", ".join(found[:8])
        return [f"columns {', '.join(missing)} are missing; found {shown}"] if missing else []

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Read the human complexes."""
        found = columns_of(file, self.delimiter)
        place = {role: _place(found, role) for role in FIELDS}
        genes, complexes, terms, dropped, read = [], [], {}, {"other species": 0}, 0
        short = []
        for record in _records(file):
            read += 1
            fields = [field.strip().strip('"') for field in record.split("\t")]
            if len(fields) <= max(place.values()):
                short.append(fields[0])
                continue
            if fields[place["organism"]].lower() != HUMAN_NAME:
                dropped["other species"] += 1
                continue
            term = f"CORUM:{fields[place['id']]}"
            members = sorted({gene.strip() for gene in fields[place["genes"]].split(";")} - {"", "None"})
            terms[term] = fields[place["name"]]
            genes += members
            complexes += [term] * len(members)
        if short:
            raise InputError(file.name, [f"complexes with too few fields: {', '.join(short[:5])}"])
        if not read:
            raise InputError(file.name, ["there are no complexes below its first line"])
        frame = link_frame(genes, complexes, relation="corum_member", kind=GENE_TERM)
        return Links(frame, read, dropped, terms=terms, release=release_in(file.stem))


def _place(columns: list[str], role: str) -> int:
    lower = [column.lower() for column in columns]
    return next((lower.index(name) for name in FIELDS[role] if name in lower), -1)


def _records(file: SourceFile) -> Iterator[str]:
    """The complexes; comments in them may run over several lines, so one begins at every number."""
    record = ""
    with file.open_text() as text:
        next(text, None)
        for line in text:
            if RECORD.match(line) and record:
                yield record
                record = ""
            record += line.rstrip("\n") if not record else " " + line.rstrip("\n")
    if record.strip():
        yield record
