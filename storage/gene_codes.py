"""How the screen store writes a gene's counts: most of them one byte each.

A gene's values come cell by cell. A code's high half is the number of cells skipped since the value before
(at first, since the tile's first cell), its low half the count less one; a half byte of 15 says that the
rest, less 15, follows in bytes of seven bits, lowest first, the top bit set in all but the last; the cells'
rest goes before the count's. In a screen of which a third of the values is not zero 96 of 100 values fit one
byte, a quarter of what a 16-bit cell and a 16-bit count take: there is less to compress and less to unpack.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: The half byte that says that more follows.
MORE = 15
#: Bytes that a value takes at most: its code, 16 bits of skipped cells and 32 of count.
MOST_BYTES = 1 + 3 + 5


def encode_genes(
    values: np.ndarray, starts: np.ndarray, *, first: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of a tile's genes ``first`` to ``last`` (exclusive).

    Parameters
    ----------
    values
        uint32 or uint64 (n_values,): a value's row in the tile in the upper half of the bits; its count,
        which is not 0, in the lower one.
    starts
        uint32 (n_parts, n_genes + 1): part after part, where each gene's values begin and end; rows ascend
        within a gene and from part to part.

    Returns
    -------
    ndarray, ndarray
        The codes, uint8; and where each gene's end, int64 (last - first,).
    """
    most = int((starts[:, last] - starts[:, first]).sum(dtype=np.int64))
    codes, ends = np.empty(most * MOST_BYTES, np.uint8), np.empty(last - first, np.int64)
    half = np.uint64(values.dtype.itemsize * 4)
    n_bytes = _encode(values, starts, first, half, codes, ends)
    return codes[:n_bytes], ends


@njit(cache=True, nogil=True)
def _encode(values, starts, first, half, codes, ends):
    mask, one, more = (np.uint64(1) << half) - np.uint64(1), np.uint64(1), np.uint64(MORE)
    at = np.uint64(0)
    for gene in range(len(ends)):
        following = np.uint64(0)
        for part in range(len(starts)):
            begin, end = np.uint64(starts[part, first + gene]), np.uint64(starts[part, first + gene + 1])
            for place in range(begin, end):
                value = np.uint64(values[place])
                skipped, count = (value >> half) - following, (value & mask) - one
                following = (value >> half) + one
                if skipped < more and count < more:
                    codes[at] = (skipped << np.uint64(4)) | count
                    at += one
                    continue
                codes[at] = (min(skipped, more) << np.uint64(4)) | min(count, more)
                at = _append_rest(skipped, codes, at + one)
                at = _append_rest(count, codes, at)
        ends[gene] = at
    return at


@njit(cache=True, nogil=True)
def _append_rest(number, codes, at):
    """Append what of ``number`` does not fit half a byte; gives the place behind it."""
    if number < np.uint64(MORE):
        return at
    rest = number - np.uint64(MORE)
    while rest > np.uint64(127):
        codes[at] = (rest & np.uint64(127)) | np.uint64(128)
        rest >>= np.uint64(7)
        at += np.uint64(1)
    codes[at] = rest
    return at + np.uint64(1)


@njit(cache=True, nogil=True)
def decode_genes(codes, starts, lengths, first_cell, last_cell, cursor, cells_out, counts_out):
    """Append a tile's values of some genes to those from the tiles before.

    Parameters
    ----------
    codes
        uint8: the genes' codes.
    starts
        int64 (n_genes + 1,): where each gene's codes begin, and the last one's end.
    lengths
        (n_genes,): each gene's number of values.
    first_cell, last_cell
        The tile's cells, the last one exclusive.
    cursor
        int64 (n_genes,): where each gene's next value goes, advanced in place.
    cells_out, counts_out
        Filled with cells and counts.

    Returns
    -------
    bool
        Whether every gene's codes ended where they should, with a cell of the tile and counts that fit. If
        ``starts`` and ``lengths`` are sound, nothing else is read or written where they are not.
    """
    whole, most = True, (np.uint64(1) << np.uint64(8 * counts_out.itemsize)) - np.uint64(1)
    for gene in range(len(lengths)):
        at, end = np.uint64(starts[gene]), np.uint64(starts[gene + 1])
        place, cell = np.uint64(cursor[gene]), np.uint64(first_cell)
        for _ in range(lengths[gene]):
            if at >= end:
                return False
            code = np.uint64(codes[at])
            at += np.uint64(1)
            skipped, count = code >> np.uint64(4), code & np.uint64(MORE)
            if skipped == np.uint64(MORE):
                skipped, at = _read_rest(codes, at, end)
            if count == np.uint64(MORE):
                count, at = _read_rest(codes, at, end)
                whole &= count < most
            cell += skipped
            cells_out[place], counts_out[place] = cell, count + np.uint64(1)
            cell, place = cell + np.uint64(1), place + np.uint64(1)
        cursor[gene] = place
        whole &= (at == end) & (cell <= np.uint64(last_cell))
    return whole


@njit(cache=True, nogil=True)
def _read_rest(codes, at, end):
    """A number of 15 or more from its rest; and the place behind that, beyond ``end`` if there is no such."""
    number, shift = np.uint64(MORE), np.uint64(0)
    # Five bytes are enough for 32 bits; more would not fit 64 in the end.
    while at < end and shift <= np.uint64(28):
        byte = np.uint64(codes[at])
        at += np.uint64(1)
        number += (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            return number, at
        shift += np.uint64(7)
    return number, end + np.uint64(1)
