"""Published AUROC per gene of Wu et al., ICLR 2025, Table 1: what a new figure is held against."""

from __future__ import annotations

DATA_SETS = ("k562", "rpe1", "hepg2", "jurkat", "k562_set")

#: Task, method, then one figure a data set in the order of `DATA_SETS`.
TABLE_1 = (
    ("de", "MLP", 0.48, 0.51, 0.51, 0.49, 0.49),
    ("de", "GAT", 0.53, 0.55, 0.58, 0.51, 0.55),
    ("de", "GEARS", 0.55, 0.49, 0.48, 0.51, 0.50),
    ("de", "GenePT-Gene", 0.57, 0.55, 0.56, 0.55, 0.58),
    ("de", "GenePT-Prot", 0.59, 0.56, 0.54, 0.55, 0.59),
    ("de", "LLM (no CoT)", 0.52, 0.52, 0.51, 0.52, 0.51),
    ("de", "LLM (no retrieval)", 0.52, 0.48, 0.49, 0.49, 0.50),
    ("de", "Retrieval (no LLM)", 0.58, 0.59, 0.56, 0.56, 0.66),
    ("de", "SUMMER", 0.62, 0.59, 0.62, 0.59, 0.62),
    ("dir", "MLP", 0.53, 0.51, 0.49, 0.45, 0.48),
    ("dir", "GAT", 0.59, 0.60, 0.63, 0.58, 0.51),
    ("dir", "GEARS", 0.67, 0.61, 0.52, 0.52, 0.70),
    ("dir", "GenePT-Gene", 0.49, 0.61, 0.61, 0.57, 0.54),
    ("dir", "GenePT-Prot", 0.55, 0.61, 0.55, 0.60, 0.57),
    ("dir", "LLM (no CoT)", 0.50, 0.49, 0.49, 0.50, 0.50),
    ("dir", "LLM (no retrieval)", 0.50, 0.52, 0.53, 0.54, 0.49),
    ("dir", "Retrieval (no LLM)", 0.69, 0.63, 0.64, 0.61, 0.66),
    ("dir", "SUMMER", 0.64, 0.64, 0.66, 0.67, 0.70),
)


def published_auroc(data_set: str, task: str) -> dict[str, float] | None:
    """Published figures by method for a data set of the paper; None for any other data set."""
    if data_set not in DATA_SETS:
        return None
    column = DATA_SETS.index(data_set)
    return {method: figures[column] for row_task, method, *figures in TABLE_1 if row_task == task}
