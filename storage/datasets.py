"""The public data sets by name: where they are published, how large they are, how they are checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from storage.errors import InputError

SEE_PUBLISHER = "see the publisher's page"


@dataclass(frozen=True)
class Dataset:
    """One public file.

    Parameters
    ----------
    checksum
        ``md5:...`` or ``sha256:...``; None where the publisher's is not at hand. The first download
        then writes ``<file>.sha256``, and later ones are checked against that.
    size_bytes, cells, genes
        None where not known, or where it means nothing.
    """

    name: str
    title: str
    file_name: str
    url: str
    size_bytes: int | None = None
    checksum: str | None = None
    cells: int | None = None
    genes: int | None = None
    licence: str = SEE_PUBLISHER
    note: str = ""


def _screen(name, title, file_name, where, size_bytes, cells, genes, checksum=None) -> Dataset:
    title, note = f"{title}, CRISPRi Perturb-seq", "raw counts, dense float32; control = non-targeting"
    return Dataset(name, title, file_name, where, size_bytes, checksum, cells, genes, note=note)


# figshare.com/ndownloader and plus.figshare.com answer programs with a robot check; this host does not.
_FIGSHARE = "https://ndownloader.figshare.com/files/"
_GEO = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE264nnn/GSE264667/suppl/"
_ZENODO = "https://zenodo.org/records/14915313/files/"
_HEPG2, _JURKAT = (f"GSE264667_{line}_raw_singlecell_01.h5ad" for line in ("hepg2", "jurkat"))

# fmt: off
_ALL = (
    _screen("k562_essential", "Replogle 2022, K562, essential genes", "K562_essential_raw_singlecell_01.h5ad",
            f"{_FIGSHARE}35773219", 10_661_879_995, 310_385, 8_563, "md5:4f1122ce1c7f13299a68df6459a266d3"),
    _screen("rpe1", "Replogle 2022, RPE1, essential genes", "rpe1_raw_singlecell_01.h5ad",
            f"{_FIGSHARE}35775606", 8_700_873_216, 247_914, 8_749, "md5:6a2a9d0d2bf4ec147f4d1104043b268c"),
    _screen("k562_gwps", "Replogle 2022, K562, genome-wide", "K562_gwps_raw_singlecell_01.h5ad",
            f"{_FIGSHARE}35775507", 65_830_941_948, 1_989_578, 8_248, "md5:887e3e6a8c8df6eadf7a3030a53c9546"),
    _screen("hepg2", "Nadig 2024, HepG2 (GEO GSE264667)", _HEPG2,
            f"{_GEO}{_HEPG2}", 5_614_460_941, 145_473, 9_624),
    _screen("jurkat", "Nadig 2024, Jurkat (GEO GSE264667)", _JURKAT,
            f"{_GEO}{_JURKAT}", 9_366_490_264, 262_956, 8_882),
    Dataset("kg", "PerturbQA knowledge graphs (Zenodo 14915313)", "kg.zip", f"{_ZENODO}kg.zip?download=1",
            checksum="md5:90977691ebac65e02765e34c31b66bd1",
            note="a JSON file a source: gene -> list of [neighbour, evidence], or gene -> terms"),
    Dataset("gene_summary", "PerturbQA gene summaries (Zenodo 14915313)", "gene_summary.zip",
            f"{_ZENODO}gene_summary.zip?download=1", checksum="md5:d14e71bedaece4e09105e4f85b819591",
            note="desc_pert, desc_gene, desc_1hop_pert, desc_1hop_gene: JSON, symbol -> text"),
)
# fmt: on
DATASETS: Mapping[str, Dataset] = MappingProxyType({dataset.name: dataset for dataset in _ALL})


def find_dataset(name: str) -> Dataset:
    """Look a data set up by name; an unknown name is an InputError with the known and the nearest."""
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"data set {name!r}", [f"unknown; {hint}Known: {', '.join(DATASETS)}"])
