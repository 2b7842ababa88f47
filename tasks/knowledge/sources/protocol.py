"""What a reader of a source gives, and what it has to offer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import pandas as pd

from tasks.knowledge.sources.source_file import SourceFile

GENE_GENE, GENE_TERM = "gene-gene", "gene-term"
KINDS = (GENE_GENE, GENE_TERM)
#: Taxon of the only species that is read.
HUMAN = "9606"
#: Columns of every source's links.
COLUMNS = ("source", "target", "relation", "kind", "score", "evidence")

RELEASE = re.compile(r"(?:^|[._ -])v?(\d+(?:\.\d+)+|20\d{2}(?:-?\d{2}-?\d{2})?)(?=$|[._ -])")
UNDERSCORED_RELEASE = re.compile(r"_v?(\d+(?:_\d+)*)(?=_|$)")
SEE_PUBLISHER = "see the publisher's page"
LICENCES: Mapping[str, str] = {
    "biogrid": "MIT",
    "corum": "CC BY-NC 4.0",
    "go": "CC BY 4.0",
    "intact": "CC BY 4.0",
    "reactome": "CC BY 4.0",
    "string": "CC BY 4.0",
    "uniprot": "CC BY 4.0",
    "wikipathways": "CC0",
}
#: Databases whose licence forbids commercial use; a file that has one in its name is taken for its own.
NONCOMMERCIAL = ("corum",)


@dataclass(frozen=True, eq=False)
class Links:
    """The links of one file, as the file names genes.

    Attributes
    ----------
    frame
        ``source`` (a gene), ``target`` (a gene or a term), ``relation``, ``kind``, ``evidence`` (may be
        empty), all categories, and ``score`` float32 (NaN where the file has none).
    read
        Rows (sets, complexes, genes) of the file.
    dropped
        Why rows were left out, and how many for each reason.
    ids
        Name of a gene to another id of it: ``entrez:7157``, ``uniprot:P04637``.
    terms
        Term to what it is called.
    release
        As the file says, else empty.
    """

    frame: pd.DataFrame
    read: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)
    terms: Mapping[str, str] = field(default_factory=dict)
    release: str = ""


@dataclass(frozen=True)
class Reading:
    """How to read.

    Attributes
    ----------
    min_string_score
        STRING's combined score, 0 to 1000, below which a link is left out.
    beside
        All files that were given, for sources that need a second one.
    """

    min_string_score: int = 700
    beside: tuple[SourceFile, ...] = ()


class Source(Protocol):
    """Reader of one format.

    Attributes
    ----------
    name, title
        Short and for people.
    files
        Names its files have, searched for in a name's lower case.
    beside
        Names of files it needs beside them, which hold no links.
    columns, delimiter
        What the first line of its files must have; none where that is not how the format is told.
    keeps_unknown
        Whether names that no list of genes has stay as they are.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    files: ClassVar[re.Pattern]
    beside: ClassVar[re.Pattern | None]
    columns: ClassVar[tuple[str, ...]]
    delimiter: ClassVar[str]
    keeps_unknown: ClassVar[bool]

    def database(self, file: SourceFile) -> str:
        """The database a file is from, one word."""

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """What is wrong with a file, as far as its beginning and its name tell."""

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Read all its human links.

        Raises
        ------
        InputError
            If something is wrong within the file.
        """


def licence_of(database: str, name: str) -> str:
    """The licence of a database's file; a non-commercial one by any word of the file's name."""
    named = next((word for word in NONCOMMERCIAL if word in name.lower()), database)
    return LICENCES.get(named, SEE_PUBLISHER)


def is_noncommercial(database: str, name: str) -> bool:
    """Whether a file's licence forbids commercial use."""
    return any(word in text.lower() for word in NONCOMMERCIAL for text in (database, name))


def release_in(name: str) -> str:
    """The release a file's name tells: ``12.0`` of ``links.v12.0``, ``11.5`` of ``string_v11_5``, a date."""
    found = RELEASE.search(name) or UNDERSCORED_RELEASE.search(name)
    return found.group(1).replace("_", ".") if found else ""


def constant(text: str, n: int) -> pd.Categorical:
    """The same text ``n`` times."""
    return pd.Categorical.from_codes(np.zeros(n, np.int8), categories=pd.Index([text], dtype=object))


def link_frame(
    source: Sequence | pd.Categorical,
    target: Sequence | pd.Categorical,
    *,
    relation: str | Sequence | pd.Categorical,
    kind: str,
    score: np.ndarray | None = None,
    evidence: str | Sequence | pd.Categorical = "",
) -> pd.DataFrame:
    """Put links into the columns that all sources share."""
    n = len(source)

    def category(values: str | Sequence | pd.Categorical) -> pd.Categorical:
        if isinstance(values, str):
            return constant(values, n)
        return values if isinstance(values, pd.Categorical) else pd.Categorical(values)

    return pd.DataFrame(
        {
            "source": category(source),
            "target": category(target),
            "relation": category(relation),
            "kind": category(kind),
            "score": np.full(n, np.nan, np.float32) if score is None else np.asarray(score, np.float32),
            "evidence": category(evidence),
        }
    )
