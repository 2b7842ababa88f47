"""A figure as a picture of its own."""

from __future__ import annotations

import struct

import pytest

from storage.errors import StorageError
from tasks.report import drawing


def figure():
    made, axes = drawing.new_figure(2.0)
    axes[0, 0].plot([0, 1], [0, 1])
    return made


def test_the_same_figure_gives_the_same_bytes_whatever_was_drawn_before(tmp_path):
    first = drawing.write_png(figure(), tmp_path / "deeper" / "first.png").read_bytes()
    drawing.svg_text(figure(), "between")
    assert drawing.write_png(figure(), tmp_path / "second.png").read_bytes() == first
    assert first.startswith(b"\x89PNG")
    assert b"Matplotlib" not in first
    width, height = struct.unpack(">II", first[16:24])
    assert abs(width - drawing.PAGE_WIDTH * drawing.PICTURE_DPI) < 80
    assert abs(height - 2.0 * drawing.PICTURE_DPI) < 80


def test_a_picture_that_cannot_be_written_is_one_error_and_leaves_nothing(read_only_folder):
    with pytest.raises(StorageError):
        drawing.write_png(figure(), read_only_folder / "picture.png")
    assert [path.name for path in read_only_folder.iterdir()] == ["there before.txt"]
