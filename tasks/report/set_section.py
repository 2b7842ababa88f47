"""The report's section on gene sets."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from tasks.report.page import Section


def set_section(sets: pd.DataFrame, calibration: Mapping[str, float]) -> Section:
    """Which sets were tested, what happened to them, and which of their genes are missing.

    Parameters
    ----------
    sets
        ``gene_set, n_genes, n_measured, missing, status, reason, n_up, n_down``.
    calibration
        ``set_null_share_p_below_05`` and ``set_null_de_calls`` of false perturbations, where there are any.
    """
    kept, excluded = sets[sets["status"] == "kept"], sets[sets["status"] == "excluded"]
    text = (
        "The score of a set in a cell is the mean over its genes of the gene's z-score, by the control "
        "cells' mean and standard deviation, scaled so that control cells have 1 on average. Scores are "
        "tested like genes, and labelled by the same rule."
    )
    if "set_null_share_p_below_05" in calibration:
        share, calls = calibration["set_null_share_p_below_05"], calibration["set_null_de_calls"]
        text += (
            f" Among false perturbations made of control cells {share:.1%} of the sets' p-values are below "
            f"0.05 (5% expected) and {calls:,} sets are called DE."
        )
    listed = pd.DataFrame(
        {
            "set": kept["gene_set"],
            "genes": kept["n_genes"],
            "measured": kept["n_measured"],
            "perturbations up": kept["n_up"].astype(int),
            "perturbations down": kept["n_down"].astype(int),
            "genes not measured": kept["missing"].map(_some),
        }
    )
    tables = [("Sets tested", listed, "All genes that are not measured are listed in gene-sets.parquet.")]
    if len(excluded):
        left_out = excluded[["gene_set", "reason"]].set_axis(["set", "reason"], axis=1)
        tables.append(("Excluded sets", left_out, "No labels are made for these."))
    return Section("Gene sets", text, tables=tables)


def _some(missing: str, most: int = 4) -> str:
    symbols = missing.split(", ") if missing else []
    more = f" and {len(symbols) - most} more" if len(symbols) > most else ""
    return ", ".join(symbols[:most]) + more
