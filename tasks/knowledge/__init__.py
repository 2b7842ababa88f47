"""Gene knowledge: reading it, resolving symbols, and the graph it makes."""

from tasks.knowledge.graph import KnowledgeGraph, Relation
from tasks.knowledge.read import read_knowledge
from tasks.knowledge.symbols import SymbolIndex

__all__ = ["KnowledgeGraph", "Relation", "SymbolIndex", "read_knowledge"]
