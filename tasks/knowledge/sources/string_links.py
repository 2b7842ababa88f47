"""STRING: ``9606.protein.links[.detailed].v12.0.txt``, with the proteins' names in ``9606.protein.info``."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from storage.errors import InputError
from tasks.knowledge.sources.delimited import CATEGORY, column_problems, renamed, stream_columns
from tasks.knowledge.sources.protocol import GENE_GENE, HUMAN, Links, Reading, link_frame, release_in
from tasks.knowledge.sources.source_file import SourceFile

INFO_COLUMNS = ("#string_protein_id", "preferred_name")


class StringLinks:
    """Links between proteins with STRING's combined score, 0 to 1000."""

    name: ClassVar[str] = "string"
    title: ClassVar[str] = "STRING protein links, with protein info"
    files: ClassVar[re.Pattern] = re.compile(r"protein\.(physical\.)?links\b")
    beside: ClassVar[re.Pattern | None] = re.compile(r"protein\.info\b")
    columns: ClassVar[tuple[str, ...]] = ("protein1", "protein2", "combined_score")
    delimiter: ClassVar[str] = " "
    keeps_unknown: ClassVar[bool] = False

    def database(self, file: SourceFile) -> str:
        """STRING."""
        return "string"

    def problems(self, file: SourceFile, reading: Reading) -> list[str]:
        """Look at the first lines of the links and of the proteins' names."""
        problems = column_problems(file, self.columns, self.delimiter)
        info = self._info(file, reading)
        if info is None:
            wanted = "9606.protein.info.v12.0.txt.gz"
            problems.append(f"the proteins' names are missing: give STRING's {wanted} of its release too")
        else:
            problems += [f"{info.name}: {text}" for text in column_problems(info, INFO_COLUMNS, "\t")]
        return problems

    def read(self, file: SourceFile, reading: Reading) -> Links:
        """Stream the links; those below the score or of other species are left out."""
        names = self._names(self._info(file, reading))

        def keep(batch: pa.RecordBatch) -> pa.Array:
            return pc.greater_equal(batch["combined_score"], reading.min_string_score)

        types = {"protein1": CATEGORY, "protein2": CATEGORY, "combined_score": pa.int32()}
        frame, read = stream_columns(file, types, delimiter=self.delimiter, keep=keep)
        human = np.logical_and.reduce([_human(frame[column]) for column in ("protein1", "protein2")])
        dropped = {f"score below {reading.min_string_score}": read - len(frame)}
        dropped["other species"] = int((~human).sum())
        frame = frame[human]
        relation = "string_physical" if "physical" in file.own_name else "string_combined"
        source, target = (
            renamed(frame[column], lambda protein: names.get(protein, protein.partition(".")[2]))
            for column in ("protein1", "protein2")
        )
        score = frame["combined_score"].to_numpy()
        links = link_frame(source, target, relation=relation, kind=GENE_GENE, score=score)
        return Links(links, read, dropped, release=release_in(file.stem))

    def _info(self, file: SourceFile, reading: Reading) -> SourceFile | None:
        """The names of the same release; where only one list of names is given, that one."""
        infos = [other for other in reading.beside if self.beside.search(other.own_name.lower())]
        same = [other for other in infos if release_in(other.stem) == release_in(file.stem)]
        found = same or infos
        return found[0] if len(found) == 1 else None

    def _names(self, info: SourceFile) -> dict[str, str]:
        table, _ = stream_columns(info, dict.fromkeys(INFO_COLUMNS, pa.string()))
        named = table[table["preferred_name"] != ""]
        if named.empty:
            raise InputError(info.name, ["no protein has a name"])
        return dict(zip(named[INFO_COLUMNS[0]], named[INFO_COLUMNS[1]], strict=True))


def _human(column: pd.Series) -> np.ndarray:
    """Whether each row's protein is of a human."""
    categories = column.cat.categories.astype(str)
    return categories.str.startswith(f"{HUMAN}.")[column.cat.codes.to_numpy()]
