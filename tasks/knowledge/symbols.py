"""Gene symbols: from whatever name a table uses to the gene of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.knowledge.lookup import sorted_positions


@dataclass(frozen=True, eq=False)
class SymbolIndex:
    """Sorted gene symbols, and the other names that lead to them.

    Attributes
    ----------
    genes
        Unicode array [n_genes], sorted, each symbol once.
    aliases
        Unicode array [n_aliases], sorted; never a symbol of ``genes``.
    alias_genes
        int64 [n_aliases]: position in ``genes`` of the gene each alias stands for.
    """

    genes: np.ndarray
    aliases: np.ndarray
    alias_genes: np.ndarray

    @classmethod
    def build(cls, genes: Iterable[str], aliases: Mapping[str, str]) -> SymbolIndex:
        """Index ``genes``; of ``aliases`` (name -> symbol) keep those that lead to one of them.

        A name that is itself one of ``genes`` is that gene, whatever ``aliases`` says.
        """
        genes = _unicode(sorted(set(genes)))
        position = {gene: at for at, gene in enumerate(genes.tolist())}
        kept = sorted(
            (name, position[symbol])
            for name, symbol in aliases.items()
            if symbol in position and name not in position
        )
        return cls(
            genes=genes,
            aliases=_unicode([name for name, _ in kept]),
            alias_genes=np.array([at for _, at in kept], dtype=np.int64),
        )

    def resolve(self, symbols: Iterable[str]) -> np.ndarray:
        """Position in ``genes`` of each symbol, int64 [n]; -1 where the name leads to none of them."""
        codes, names = pd.factorize(np.asarray(list(symbols), dtype=object))
        names = np.asarray(names, dtype=str) if len(names) else _unicode([])
        found = sorted_positions(self.genes, names)
        alias = sorted_positions(self.aliases, names)
        by_alias = (found < 0) & (alias >= 0)
        found[by_alias] = self.alias_genes[alias[by_alias]]
        # factorize codes a missing name -1, which must stay "unknown" and not wrap to the last name.
        return np.where(codes >= 0, np.append(found, -1)[codes], -1)

    def state(self) -> dict[str, np.ndarray]:
        """Return the three arrays, ready for ``np.savez``."""
        return {"genes": self.genes, "aliases": self.aliases, "alias_genes": self.alias_genes}


def _unicode(names: list[str]) -> np.ndarray:
    """Fixed-width unicode, one character wide even if empty, so that numpy can save it without pickle."""
    return np.array(names, dtype=str) if names else np.empty(0, dtype="<U1")
