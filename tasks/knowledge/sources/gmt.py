"""Gene sets as GMT: a line a set, with its name, a description and its genes."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import count
from typing import ClassVar

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.knowledge.sources.protocol import GENE_TERM, LICENCES, Links, Reading, link_frame, release_in
from tasks.knowledge.sources.source_file import SourceFile

#: Ids of terms that sets' names or descriptions give.
ACCESSION = re.compile(r"R-HSA-\d+|GO:\d{7}|(?<![A-Za-z])WP\d+")
#: What MSigDB's names of sets begin with.
PREFIXES = {
    "GOBP_": "go_bp",
    "GOCC_": "go_cc",
    "GOMF_": "go_mf",
    "REACTOME_": "reactome_member",
    "WP_": "wikipathways_member",
}
MSIGDB = re.compile(r"^(c\d|h|msigdb)[._]")
HUMAN_NAME = "Homo sapiens"


class Gmt:
    """Sets as terms; of WikiPathways' own files only the human ones."""

    name: ClassVar[str] = "gmt"
    title: ClassVar[str] = "gene sets, GMT"
    files: ClassVar[re.Pattern] = re.compile(r"\.gmt(\.gz|\.txt)?$")
    beside: ClassVar[re.Pattern | None] = None
    columns: ClassVar[tuple[str, ...]] = ()
    delimiter: ClassVar[str] = "\t"
    keeps_unknown: ClassVar[bool] = False

    def database(self, file: SourceFile) -> str:
        """The database the file's name tells, else its first word."""
        name = file.own_name.lower()
        known = [word for word in LICENCES if len(word) > 2 and word in name]
        if known:
            return known[0]
        if MSIGDB.match(name):
            return "msigdb"
        return re.split(r"[^a-z0-9]", name)[0] or "gmt"

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """Look at the first line."""
        line = file.first_line()
        if not line.strip():
            return ["the file is empty"]
        fields = line.count("\t") + 1
        wanted = "a set's name, a description and its genes, with tabs between"
        return [] if fields >= 3 else [f"its first line has {fields} fields; {wanted} are needed"]

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Read all sets."""
        database = self.database(file)
        genes: defaultdict[str, int] = defaultdict(count().__next__)
        members, sizes, sets, short = [], [], [], []
        dropped = {"other species": 0}
        read = 0
        with file.open_text() as text:
            for number, line in enumerate(text, 1):
                fields = line.rstrip("\n").split("\t")
                if not line.strip():
                    continue
                read += 1
                if len(fields) < 3 or not fields[0].strip():
                    short.append(str(number))
                    continue
                if not _is_human(fields[0]):
                    dropped["other species"] += 1
                    continue
                codes = [genes[gene.strip()] for gene in fields[2:] if gene.strip()]
                members.extend(codes)
                sizes.append(len(codes))
                sets.append((fields[0].strip(), fields[1].strip()))
        if short:
            shown = ", ".join(short[:5]) + (" and more" if len(short) > 5 else "")
            problem = f"{len(short)} lines have no name or no third field: {shown}"
            raise InputError(file.name, [problem])
        return Links(
            _frame(list(genes), members, sizes=sizes, sets=sets, database=database),
            read,
            dropped,
            terms={_accession(name, description): _title(name) for name, description in sets},
            release=release_in(file.stem),
        )


def _frame(
    genes: list[str], members: list[int], *, sizes: list[int], sets: list[tuple[str, str]], database: str
) -> pd.DataFrame:
    """The sets' links.

    Parameters
    ----------
    members
        Positions in ``genes``, set after set; ``sizes`` says how many each set has.
    sets
        Name and description of each.
    """
    order = np.repeat(np.arange(len(sets)), sizes)
    terms = pd.Categorical([_accession(name, description) for name, description in sets])
    relations = pd.Categorical([_relation(name, database) for name, _ in sets])
    source = pd.Categorical.from_codes(
        np.asarray(members, np.int64), categories=pd.Index(genes, dtype=object)
    )
    return link_frame(source, terms[order], relation=relations[order], kind=GENE_TERM)


def _accession(name: str, description: str) -> str:
    """The term's id where name or description gives one, else the name."""
    found = ACCESSION.search(name) or ACCESSION.search(description)
    return found.group() if found else name


def _title(name: str) -> str:
    """What the set is called: WikiPathways' names go on with release, id and species."""
    return name.partition("%")[0].strip()


def _relation(name: str, database: str) -> str:
    known = (relation for prefix, relation in PREFIXES.items() if name.startswith(prefix))
    return next(known, f"{database}_member")


def _is_human(name: str) -> bool:
    """Whether the species that WikiPathways' names end with is human; other names tell no species."""
    parts = name.split("%")
    return len(parts) < 4 or parts[3].strip() == HUMAN_NAME
