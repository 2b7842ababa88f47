"""Gene Ontology annotations in GAF 2.x: genes to terms, with evidence codes."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import InputError
from tasks.knowledge.sources.delimited import CATEGORY, renamed, stream_columns
from tasks.knowledge.sources.protocol import GENE_TERM, HUMAN, Links, Reading, link_frame, release_in
from tasks.knowledge.sources.source_file import SourceFile

#: The format's columns; those that are read have names.
N_COLUMNS = 17
PLACES = {0: "db", 1: "id", 2: "symbol", 3: "qualifier", 4: "term", 6: "evidence", 8: "aspect", 12: "taxon"}
ASPECTS = {"P": "go_bp", "C": "go_cc", "F": "go_mf"}


class Gaf:
    """Annotations of human genes; those that say what a gene is not or does not do are left out."""

    name: ClassVar[str] = "gaf"
    title: ClassVar[str] = "GO annotations, GAF 2"
    files: ClassVar[re.Pattern] = re.compile(r"\.gaf(\.gz)?$")
    beside: ClassVar[re.Pattern | None] = None
    columns: ClassVar[tuple[str, ...]] = ()
    delimiter: ClassVar[str] = "\t"
    keeps_unknown: ClassVar[bool] = False

    def database(self, file: SourceFile) -> str:
        """The Gene Ontology."""
        return "go"

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """Look at the comments the file begins with and at its first row."""
        comments, first = _beginning(file)
        if not comments and not first:
            return ["the file is empty"]
        version = next((line for line in comments if line.startswith("!gaf-version:")), "")
        problems = []
        if not re.match(r"!gaf-version:\s*2\.", version):
            found = version or (comments[0] if comments else first)
            problems.append(f"GAF 2 begins with '!gaf-version: 2.2'; found '{found[:60]}'")
        if not first:
            problems.append("there are comments only, no annotations")
        elif (found := first.count("\t") + 1) != N_COLUMNS:
            problems.append(f"a row has {found} fields; GAF 2 has {N_COLUMNS}, with tabs between")
        return problems

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Stream the annotations."""
        comments, _ = _beginning(file)
        names = [PLACES.get(at, f"column {at + 1}") for at in range(N_COLUMNS)]
        frame, read = stream_columns(
            file,
            dict.fromkeys(PLACES.values(), CATEGORY),
            names=names,
            skip_lines=len(comments),
            comment="!",
            keep=_is_human,
        )
        dropped = {"other species": read - len(frame)}
        negated = _matches(frame["qualifier"], r"(?:^|\|)NOT(?:\||$)")
        dropped["NOT annotations"] = int(negated.sum())
        frame = frame[~negated]
        unknown = sorted(set(frame["aspect"].astype(str)) - set(ASPECTS))
        if unknown:
            raise InputError(file.name, [f"aspects must be P, C or F; found {', '.join(unknown)}"])
        links = link_frame(
            renamed(frame["symbol"], str.strip),
            renamed(frame["term"], str.strip),
            relation=renamed(frame["aspect"], lambda aspect: ASPECTS.get(aspect, "")),
            kind=GENE_TERM,
            evidence=renamed(frame["evidence"], str.strip),
        )
        return Links(links, read, dropped, _protein_ids(frame), release=_release(file, comments))


def _beginning(file: SourceFile) -> tuple[list[str], str]:
    """The comments before the first row, and that row."""
    with file.open_text() as text:
        comments = [line.rstrip("\n") for line in takewhile(lambda line: line.startswith("!"), text)]
    with file.open_text() as text:
        first = next((line for line in text if not line.startswith("!")), "")
    return comments, first.rstrip("\n")


def _is_human(batch: pa.RecordBatch) -> pa.Array:
    # "taxon:9606|taxon:562" is a human gene product acting on another species.
    return pc.match_substring_regex(pc.cast(batch["taxon"], pa.string()), rf"^taxon:{HUMAN}(\||$)")


def _matches(column: pd.Series, pattern: str) -> pd.Series:
    """Whether the category of each row matches a pattern."""
    found = column.cat.categories.astype(str).str.contains(pattern, regex=True)
    return pd.Series(found[column.cat.codes.to_numpy()], index=column.index)


def _protein_ids(frame: pd.DataFrame) -> dict[str, str]:
    """Symbol to UniProt accession where it has only one."""
    proteins = frame[frame["db"] == "UniProtKB"]
    pairs = proteins[["symbol", "id"]].drop_duplicates().astype(str)
    pairs = pairs[~pairs["symbol"].duplicated(keep=False)]
    return {name.strip(): f"uniprot:{accession}" for name, accession in pairs.itertuples(index=False)}


def _release(file: SourceFile, comments: list[str]) -> str:
    dates = (re.match(r"!date-generated:\s*(\S+)", line) for line in comments)
    return next((found.group(1)[:10] for found in dates if found), release_in(file.stem))
