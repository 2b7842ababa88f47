"""From DE tests to label tables: which pairs are 1, which are 0, and which side of the split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from storage.errors import InputError
from tasks.expression.calibration import called
from tasks.random_streams import RandomStream

#: What is counted of each perturbation.
COUNTED = ("perturbation", "n_up", "n_down", "n_not_de", "n_uncertain", "n_unmeasured")


@dataclass(frozen=True)
class LabelTables:
    """The two tables (``pert, gene, label, split``) and counts by perturbation.

    Attributes
    ----------
    de, dir
        Label 1 = differentially expressed; label 1 = up, 0 = down.
    counts
        ``perturbation, n_up, n_down`` (all DE genes, before the cap), ``n_not_de`` (pairs that may be 0),
        ``n_uncertain`` (neither), ``n_unmeasured`` (not DE, and the test could not have seen it), and
        ``split`` ('' where not labelled). The perturbed gene itself is in none of them.
    """

    de: pd.DataFrame
    dir: pd.DataFrame
    counts: pd.DataFrame


def make_labels(
    tests: Iterable[tuple[str, pd.DataFrame]],
    *,
    fdr: float = 0.05,
    min_log2_fold_change: float = 0.1,
    negative_min_p: float = 0.1,
    detectable: float = 0.0,
    max_positives: int = 20,
    positives_by: str = "strongest",
    negatives: int = 75,
    max_without_de: int = 100,
    test_share: float = 0.25,
    seed: int = 0,
    split: Mapping[str, str] | None = None,
) -> LabelTables:
    """Apply the label rule to DE tests, one perturbation after the other.

    Parameters
    ----------
    tests
        Each perturbation's name and tests: ``gene, log2_fold_change, direction, p_value, p_adj,
        log10_p_value`` and, with ``detectable``, ``detectable_log2_fold_change``. A missing p-value is a pair
        that was not tested.
    fdr, min_log2_fold_change
        A pair is 1 when its adjusted p is below ``fdr`` and its |log2 fold change| reaches the minimum, on
        the side where the test's own statistic lies (`tasks.expression.calibration.called`).
    negative_min_p
        Only pairs with an unadjusted p of at least this may be drawn as 0; what lies between is left out.
    detectable
        Only pairs in which the test would have found a change of this |log2 fold change| may be drawn as 0;
        0 does not ask.
    max_positives
        At most so many positives a perturbation: the ``strongest`` by p-value, or drawn at ``random``.
    negatives
        Negatives drawn a perturbation.
    max_without_de
        At most so many perturbations without DE genes are kept, drawn at random.
    test_share
        Share of perturbations in the test split; both sides get similar numbers of DE genes.
    seed
        Draws depend on the seed and the perturbation's name only, not on the order of rows.
    split
        The side of each perturbation where it is settled already; one that is not listed is left out.

    Raises
    ------
    InputError
        If there are too few perturbations with labels to split.
    """
    parts, counts = [], []
    for name, rows in tests:
        kinds = _kinds(
            name,
            rows,
            fdr=fdr,
            min_log2_fold_change=min_log2_fold_change,
            negative_min_p=negative_min_p,
            detectable=detectable,
        )
        rng = np.random.default_rng([seed, *name.encode()])
        pairs = _drawn_pairs(
            kinds, rng, max_positives=max_positives, positives_by=positives_by, negatives=negatives
        )
        parts.append(pairs[["gene", "label", "log2_fold_change"]].assign(pert=name))
        counts.append(_counts(name, kinds) | {"n_pairs": len(pairs)})
    counts = pd.DataFrame(counts, columns=[*COUNTED, "n_pairs"])
    counts = counts.sort_values("perturbation", ignore_index=True)
    if split is None:
        counts["split"] = _split_labelled(
            counts, max_without_de=max_without_de, test_share=test_share, seed=seed
        )
    else:
        counts["split"] = counts["perturbation"].map(split).fillna("")
    return _tables(pd.concat(parts), counts.drop(columns="n_pairs"))


def _drawn_pairs(
    kinds: Mapping[str, pd.DataFrame],
    rng: np.random.Generator,
    *,
    max_positives: int,
    positives_by: str,
    negatives: int,
) -> pd.DataFrame:
    """A perturbation's pairs that are labelled 1 and 0, of those that may be."""
    positives = kinds["positive"].sort_values(["log10_p_value", "gene"], kind="stable")
    if len(positives) > max_positives and positives_by == "strongest":
        positives = positives.head(max_positives)
    elif len(positives) > max_positives:
        positives = positives.iloc[np.sort(rng.choice(len(positives), max_positives, replace=False))]
    pool = kinds["negative"].sort_values("gene", kind="stable")
    drawn = pool.iloc[np.sort(rng.choice(len(pool), min(negatives, len(pool)), replace=False))]
    return pd.concat([positives.assign(label=1), drawn.assign(label=0)])


def _counts(name: str, kinds: Mapping[str, pd.DataFrame]) -> dict[str, object]:
    """A perturbation's row of `LabelTables.counts`."""
    up = int((kinds["positive"]["log2_fold_change"] > 0).sum())
    return {
        "perturbation": name,
        "n_up": up,
        "n_down": len(kinds["positive"]) - up,
        "n_not_de": len(kinds["negative"]),
        "n_uncertain": len(kinds["uncertain"]),
        "n_unmeasured": len(kinds["unmeasured"]),
    }


def _split_labelled(counts: pd.DataFrame, *, max_without_de: int, test_share: float, seed: int) -> np.ndarray:
    """Split the perturbations that have pairs at all."""
    labelled = (counts["n_pairs"] > 0).to_numpy()
    split = np.full(len(counts), "", dtype=object)
    try:
        split[labelled] = split_perturbations(
            counts[labelled], max_without_de=max_without_de, test_share=test_share, seed=seed
        )
    except InputError as error:
        if labelled.all():
            raise
        unseen = (
            f"{int((~labelled).sum())} of {len(counts)} perturbations have no DE gene, and none measured "
            "well enough to be called not DE; raise --detectable (0: do not ask)"
        )
        raise InputError(error.subject, [*error.problems, unseen]) from error
    return split


def _kinds(
    name: str,
    rows: pd.DataFrame,
    *,
    fdr: float,
    min_log2_fold_change: float,
    negative_min_p: float,
    detectable: float,
) -> dict[str, pd.DataFrame]:
    """A perturbation's pairs, without its own gene, by what may be said of them."""
    rows = rows.astype({"gene": str})
    rows = rows[rows["gene"] != name]
    positive = called(rows, fdr=fdr, min_log2_fold_change=min_log2_fold_change)
    seen = rows["p_value"].notna().to_numpy()
    if detectable:
        seen &= (rows["detectable_log2_fold_change"] <= detectable).to_numpy()
    likely_not = (rows["p_value"] >= negative_min_p).to_numpy()
    return {
        "positive": rows[positive],
        "negative": rows[~positive & seen & likely_not],
        "uncertain": rows[~positive & seen & ~likely_not],
        "unmeasured": rows[~positive & ~seen],
    }


def split_perturbations(
    counts: pd.DataFrame, *, max_without_de: int = 100, test_share: float = 0.25, seed: int = 0
) -> np.ndarray:
    """Assign perturbations to train or test, stratified by their number of DE genes.

    Perturbations are ordered by number of DE genes and cut into runs of similar ones; each run gives one to
    the smaller side, drawn at random. Surplus perturbations without DE genes get ''.

    Returns
    -------
    ndarray
        (n_perturbations,) of 'train', 'test' or ''.
    """
    rng = np.random.default_rng([seed, RandomStream.SPLIT])
    n_de = (counts["n_up"] + counts["n_down"]).to_numpy()
    without = np.flatnonzero(n_de == 0)
    dropped = rng.permutation(without)[max_without_de:]
    kept = np.setdiff1d(np.arange(len(counts)), dropped)
    least = max(2, round(1 / test_share))
    if len(kept) < least:
        message = f"{len(kept)} perturbations are too few to split {1 - test_share:.0%} to {test_share:.0%}"
        advice = "lower --min-cells, or use `pqa test-expression`, which needs no split"
        raise InputError("labels", [f"{message}; at least {least} are needed: {advice}"])
    split = np.full(len(counts), "", dtype=object)
    # Ties in the number of DE genes are broken at random, so that names do not decide the side.
    order = kept[np.lexsort((rng.random(len(kept)), n_de[kept]))]
    # Both sides get at least one, whatever the share; the smaller one is drawn, one of each run.
    n_test = min(max(1, round(len(kept) * test_share)), len(kept) - 1)
    smaller, larger = ("test", "train") if n_test <= len(kept) / 2 else ("train", "test")
    bounds = np.linspace(0, len(kept), min(n_test, len(kept) - n_test) + 1).round().astype(int)
    for members in np.split(order, bounds[1:-1]):
        split[members] = larger
        split[rng.choice(members)] = smaller
    return split


def _tables(pairs: pd.DataFrame, counts: pd.DataFrame) -> LabelTables:
    side = counts.set_index("perturbation")["split"]
    pairs = pairs.assign(split=pairs["pert"].map(side))
    pairs = pairs[pairs["split"] != ""].sort_values(["pert", "gene"], kind="stable")
    columns = ["pert", "gene", "label", "split"]
    de = pairs[columns].astype({"label": "Int8"}).reset_index(drop=True)
    positives = pairs[pairs["label"] == 1]
    direction = positives.assign(label=(positives["log2_fold_change"] > 0).astype(int))
    return LabelTables(de, direction[columns].astype({"label": "Int8"}).reset_index(drop=True), counts)
