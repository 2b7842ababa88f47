"""What holds for every source: how its files are told, packed and refused, releases and licences."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from storage.errors import InputError
from tasks.knowledge.sources import SOURCES, is_beside, source_of
from tasks.knowledge.sources.protocol import COLUMNS, KINDS, is_noncommercial, licence_of, release_in
from tasks.knowledge.sources.source_file import SourceFile, files_in
from tests.knowledge_files import (
    FILES,
    problems,
    read,
    reading,
    source_file,
    write_files,
)

MANIFOLD = [name for name in FILES if "info" not in name]


@pytest.fixture
def folder(tmp_path):
    write_files(tmp_path)
    return tmp_path


def test_every_source_gives_the_same_columns_and_its_name_tells_the_format(folder):
    for name in MANIFOLD:
        one = source_file(folder, name)
        links = source_of(one).read(one, reading(folder))
        assert tuple(links.frame.columns) == COLUMNS
        assert set(links.frame["kind"]) <= set(KINDS)
        assert links.frame["score"].dtype == np.float32
        assert problems(folder, name) == []
    assert is_beside(source_file(folder, "9606.protein.info.v12.0.txt"))
    assert sorted(SOURCES) == ["biogrid", "bioplex", "corum", "gaf", "gmt", "published", "string", "tables"]


@pytest.mark.parametrize("name", MANIFOLD)
@pytest.mark.parametrize("how", ["gz", "zip", "crlf", "bom"])
def test_packed_and_windows_files_read_the_same(folder, tmp_path_factory, name, how):
    plain, other = read(folder, name), tmp_path_factory.mktemp("other")
    text = (folder / name).read_text()
    (other / "9606.protein.info.v12.0.txt").write_bytes((folder / "9606.protein.info.v12.0.txt").read_bytes())
    if how == "gz":
        (other / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        one = SourceFile(other / f"{name}.gz")
    elif how == "zip":
        with zipfile.ZipFile(other / "packed.zip", "w") as archive:
            archive.writestr(f"inside/{name}", text)
            archive.writestr("__MACOSX/._junk", "x")
        ((one,), _) = files_in(other / "packed.zip")
    else:
        text = text.replace("\n", "\r\n") if how == "crlf" else "\ufeff" + text
        (other / name).write_bytes(text.encode())
        one = SourceFile(other / name)
    assert source_of(one).problems(one, reading(other)) == []
    links = source_of(one).read(one, reading(other))
    pd.testing.assert_frame_equal(links.frame.astype(str), plain.frame.astype(str))
    assert (links.read, links.dropped, links.ids, links.terms) == (
        plain.read,
        plain.dropped,
        plain.ids,
        plain.terms,
    )


@pytest.mark.parametrize("name", MANIFOLD)
def test_an_empty_file_is_said_to_be_empty(folder, name):
    (folder / name).write_text("")
    assert problems(folder, name) == ["the file is empty"]


@pytest.mark.parametrize("name", MANIFOLD[:3] + MANIFOLD[5:])
def test_a_wrong_first_line_is_refused_with_what_was_found(folder, name):
    (folder / name).write_text("gene_one\tgene_two\n1\t2\n")
    (problem,) = problems(folder, name)
    assert "gene_one" in problem or "2 fields" in problem


@pytest.mark.parametrize(
    "row", ["9606.A 9606.B high", "9606.A 9606.B", "9606.A 9606.B 1 2", "9606.A 9606.B "]
)
def test_rows_that_are_no_rows_are_refused_not_skipped(folder, row):
    with (folder / "9606.protein.links.v12.0.txt").open("a") as handle:
        handle.write(row + "\n")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read(folder, "9606.protein.links.v12.0.txt")


def test_a_header_without_rows_is_refused(folder):
    for name in ("9606.protein.links.v12.0.txt", "allComplexes.txt"):
        (folder / name).write_text(FILES[name][0] + "\n")
        with pytest.raises(InputError, match="below its first line"):
            read(folder, name)


def test_a_named_file_may_be_known_by_its_first_line(folder):
    (folder / "mine.txt").write_text((folder / "9606.protein.links.v12.0.txt").read_text())
    assert source_of(SourceFile(folder / "mine.txt", named=True)).name == "string"
    assert source_of(SourceFile(folder / "mine.txt")) is None


def test_broken_archives_and_missing_files_are_said(tmp_path):
    (tmp_path / "kg.zip").write_bytes(b"PK not an archive")
    (tmp_path / "x.gaf.gz").write_bytes(gzip.compress(b"!gaf-version: 2.2\n" * 1000)[:40])
    found, wrong = files_in(tmp_path)
    assert [one.name for one in found] == ["x.gaf.gz"]
    assert "kg.zip: cannot be read as a zip archive" in wrong[0]
    assert "no such file" in files_in(tmp_path / "nothing")[1][0]
    with pytest.raises(InputError, match="cannot be read"):
        problems(tmp_path, "x.gaf.gz")


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("9606.protein.links.v12.0", "12.0"),
        ("BIOGRID-ORGANISM-Homo_sapiens-4.4.232.tab3", "4.4.232"),
        ("edges_string_v11_5_min750", "11.5"),
        ("gene_go_goa_2026", "2026"),
        ("wikipathways-20230410-gmt-Homo_sapiens", "20230410"),
        ("ReactomePathways", ""),
    ],
)
def test_releases_from_names(name, release):
    assert release_in(name) == release


def test_licences():
    assert licence_of("string", "9606.protein.links") == "CC BY 4.0"
    assert licence_of("lab", "edges_lab_corum.parquet") == "CC BY-NC 4.0"
    assert licence_of("lab", "edges_lab.parquet") == "see the publisher's page"
    assert is_noncommercial("lab", str(Path("gene_CORUM_4.parquet")))
    assert not is_noncommercial("biogrid", "BIOGRID-ALL.tab3.txt")
