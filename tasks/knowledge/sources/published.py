"""The graphs of the PerturbQA release (``kg.zip``): a JSON file a source, gene -> [neighbour, evidence]."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.knowledge.sources.protocol import GENE_GENE, GENE_TERM, Links, Reading, link_frame
from tasks.knowledge.sources.source_file import SourceFile

#: The aspect of GO that a relation belongs to (GAF 2.2); a negated one is none.
GO_ASPECTS = {
    "enables": "go_mf",
    "contributes_to": "go_mf",
    "involved_in": "go_bp",
    "acts_upstream_of": "go_bp",
    "is_active_in": "go_cc",
    "located_in": "go_cc",
    "part_of": "go_cc",
    "colocalizes_with": "go_cc",
}
NEGATED = "NOT|"


class PublishedGraph:
    """One file of the release: a list of links between genes, or (a list of mappings) from genes to terms."""

    name: ClassVar[str] = "published"
    title: ClassVar[str] = "kg.zip of the PerturbQA release"
    files: ClassVar[re.Pattern] = re.compile(r"^(string|bioplex|biogrid|go|reactome|corum)\.json$")
    beside: ClassVar[re.Pattern | None] = re.compile(r"^go_dict\.json$")
    columns: ClassVar[tuple[str, ...]] = ()
    delimiter: ClassVar[str] = ""
    keeps_unknown: ClassVar[bool] = False

    def database(self, file: SourceFile) -> str:
        """The database that gives the file its name."""
        return file.stem.lower()

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """Nothing can be told before all of the file is read, except that it is empty."""
        return [] if file.first_line().strip() else ["the file is empty"]

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Read one graph."""
        content = _load(file)
        kind = GENE_TERM if isinstance(content, list) else GENE_GENE
        by_gene = content[0] if isinstance(content, list) and content else content
        rows, wrong = _rows(by_gene)
        if wrong:
            shown = ", ".join(wrong[:3])
            message = f"{len(wrong)} genes have something else than [neighbour, evidence]: {shown}"
            raise InputError(file.name, [message])
        if not rows:
            raise InputError(file.name, ["there are no links in it"])
        database = self.database(file)
        kept = [row for row in rows if not row[2].startswith(NEGATED)]
        genes, targets, evidence, scores = (list(column) for column in zip(*kept, strict=True))
        relation: str | list[str] = f"{database}_{'member' if kind == GENE_TERM else 'interacts'}"
        if database == "go":
            relation = [_aspect(text) for text in evidence]
        score = np.array(scores, np.float32)
        frame = link_frame(genes, targets, relation=relation, kind=kind, score=score, evidence=evidence)
        dropped = {"NOT annotations": len(rows) - len(kept)} if database == "go" else {}
        return Links(frame, len(rows), dropped, terms=self._terms(frame, file, reading))

    def _terms(self, frame: pd.DataFrame, file: SourceFile, reading: Reading) -> dict[str, str]:
        """Names of GO terms from the list beside, if it is there."""
        if self.database(file) != "go":
            return {}
        for other in reading.beside:
            if self.beside.search(other.own_name.lower()) and other.path.parent == file.path.parent:
                names = _load(other)
                if not isinstance(names, dict):
                    raise InputError(other.name, ["not an object of term -> name"])
                return {term: str(names[term]) for term in frame["target"].cat.categories if term in names}
        return {}


def _load(file: SourceFile) -> object:
    with file.open() as raw:
        try:
            return json.load(raw)
        except ValueError as error:
            raise InputError(file.name, [f"not JSON ({error})"]) from error


def _rows(by_gene: object) -> tuple[list[tuple[str, str, str, float]], list[str]]:
    """Gene, neighbour, evidence and score of every link, and the genes whose links cannot be read."""
    if not isinstance(by_gene, Mapping):
        return [], ["the whole file"]
    rows, wrong = [], Counter()
    for gene, entries in by_gene.items():
        if not isinstance(entries, list):
            wrong[gene] += 1
            continue
        for entry in entries:
            row = _row(gene.strip(), entry)
            if row is None:
                wrong[gene] += 1
            else:
                rows.append(row)
    return rows, list(wrong)


def _row(gene: str, entry: object) -> tuple[str, str, str, float] | None:
    neighbour, *rest = entry if isinstance(entry, list) and entry else (entry,)
    if not isinstance(neighbour, str) or not neighbour.strip() or not gene:
        return None
    evidence = rest[0] if rest else ""
    if isinstance(evidence, int | float) and not isinstance(evidence, bool):
        return gene, neighbour.strip(), "", float(evidence)
    if isinstance(evidence, list):
        evidence = "|".join(sorted(map(str, evidence)))
    return gene, neighbour.strip(), "" if evidence is None else str(evidence), float("nan")


def _aspect(qualifier: str) -> str:
    known = (aspect for word, aspect in GO_ASPECTS.items() if qualifier.startswith(word))
    return next(known, "go_annotation")
