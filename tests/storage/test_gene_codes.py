from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.gene_codes import MOST_BYTES, decode_genes, encode_genes


def packed(genes: list[dict[int, int]], cuts: list[int], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """A tile's values, and where those of each part begin; ``genes`` holds each one's counts by row."""
    half = np.dtype(dtype).itemsize * 4
    values, starts = [], []
    for low, high in zip([0, *cuts], [*cuts, 1 << 16], strict=True):
        starts.append([len(values)])
        for gene in genes:
            values += [row << half | gene[row] for row in sorted(gene) if low <= row < high]
            starts[-1].append(len(values))
    return np.array(values, dtype), np.array(starts, np.int64)


def unpacked(codes: np.ndarray, ends: np.ndarray, genes: list[dict[int, int]]) -> list[dict[int, int]]:
    lengths = np.array([len(gene) for gene in genes], np.int64)
    begin = np.concatenate([[0], np.cumsum(lengths)])
    cells, counts = np.empty(begin[-1], np.int32), np.empty(begin[-1], np.uint32)
    starts = np.concatenate([[0], ends])
    assert decode_genes(codes, starts, lengths, 100, 100 + (1 << 16), begin[:-1].copy(), cells, counts)
    return [
        dict(zip((cells[a:b] - 100).tolist(), counts[a:b].tolist(), strict=True))
        for a, b in itertools.pairwise(begin)
    ]


SMALL = st.integers(1, 40)
#: Around the places where a number takes another byte.
EDGES = st.sampled_from([1, 15, 16, 17, 142, 143, 144, 16_526, 16_527, 16_528, 65_535])


@settings(max_examples=200, deadline=None)
@given(
    genes=st.lists(st.dictionaries(st.integers(0, 65_535) | SMALL, SMALL | EDGES, max_size=30), max_size=6),
    cuts=st.lists(st.integers(1, 65_535), max_size=3, unique=True).map(sorted),
)
def test_what_is_written_is_read_whatever_the_parts(genes, cuts):
    values, starts = packed(genes, cuts, np.uint32)
    codes, ends = encode_genes(values, starts, first=0, last=len(genes))
    assert unpacked(codes, ends, genes) == genes


@settings(max_examples=100, deadline=None)
@given(gene=st.dictionaries(st.integers(0, 65_535), st.integers(1, (1 << 32) - 1), max_size=20))
def test_counts_of_32_bits_come_back_too(gene):
    values, starts = packed([gene], [], np.uint64)
    codes, ends = encode_genes(values, starts, first=0, last=1)
    assert unpacked(codes, ends, [gene]) == [gene]
    assert len(codes) <= MOST_BYTES * len(gene)


def test_a_range_of_genes_has_the_codes_it_has_among_all():
    genes = [{1: 3, 40: 20}, {0: 1}, {}, {7: 700, 65_535: 2}]
    values, starts = packed(genes, [30], np.uint32)
    whole, ends = encode_genes(values, starts, first=0, last=4)
    part, part_ends = encode_genes(values, starts, first=1, last=4)
    assert part.tolist() == whole[ends[0] :].tolist()
    assert (part_ends + ends[0]).tolist() == ends[1:].tolist()


def test_up_to_14_cells_skipped_and_counts_to_15_take_one_byte():
    gene = {15 * i: 1 + i % 15 for i in range(1000)}
    codes, _ = encode_genes(*packed([gene], [], np.uint32), first=0, last=1)
    assert len(codes) == 1000
    assert codes[:3].tolist() == [0x00, 0xE1, 0xE2]
    for wider in ({15: 1}, {0: 16}):
        assert len(encode_genes(*packed([wider], [], np.uint32), first=0, last=1)[0]) == 2


TOO_MANY_BITS = [0xF0, *[0xFF] * 9, 0x01]


@pytest.mark.parametrize(
    ("codes", "starts", "lengths"),
    [
        ([0x00], [0, 1], [2]),
        ([0x00, 0x00], [0, 2], [1]),
        ([0xF0], [0, 1], [1]),
        ([0xF0, 0x80], [0, 2], [1]),
        ([0xE0, 0xE0], [0, 2], [2]),
        (TOO_MANY_BITS, [0, len(TOO_MANY_BITS)], [1]),
        # 65,536 as a count of 16 bits; then the first of two genes only.
        ([0x0F, 0xF0, 0xFF, 0x03], [0, 4], [1]),
        ([0xE0, 0xE0, 0x00], [0, 2, 3], [2, 1]),
        ([0x00, 0x00, 0x00], [0, 2, 3], [1, 1]),
        ([0x0F, 0xF0, 0xFF, 0x03, 0x00], [0, 4, 5], [1, 1]),
    ],
)
def test_codes_that_are_not_what_was_written_are_found_out(codes, starts, lengths):
    out = np.zeros(4, np.int32), np.zeros(4, np.uint16)
    cursor = np.cumsum([0, *lengths])[:-1]
    given = np.array(codes, np.uint8), np.array(starts), np.array(lengths)
    assert not decode_genes(*given, 0, 20, cursor, *out)


def test_the_largest_count_of_16_bits_is_read():
    out = np.zeros(1, np.int32), np.zeros(1, np.uint16)
    codes, ends = encode_genes(*packed([{3: 65_535}], [], np.uint32), first=0, last=1)
    starts, cursor = np.array([0, *ends]), np.zeros(1, np.int64)
    assert decode_genes(codes, starts, np.array([1]), 0, 20, cursor, *out)
    assert (out[0][0], out[1][0]) == (3, 65_535)
