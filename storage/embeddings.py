"""Vectors of texts by the model that made them, kept so that no text is embedded twice.

A store is a folder with one folder a model; a model's vectors lie in blocks, each an ``npz`` file written
whole or not at all and named after the texts in it: two processes that embed the same texts write the same
file, one after the other.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from storage.atomic import atomic_path
from storage.errors import StorageError
from storage.manifest import file_digest, folder_digest

#: Hexadecimal digits of a text's SHA-256.
KEY_LENGTH = 64


def text_key(text: str) -> str:
    """Hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def model_digest(folder: Path | str) -> str:
    """Hexadecimal digest over names and contents of all files of a model's folder."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return folder_digest({path.relative_to(folder).as_posix(): file_digest(path) for path in files})


class EmbeddingStore:
    """The vectors of one model.

    Parameters
    ----------
    folder
        Of the store; made with the first vectors.
    model
        `model_digest` of the model that makes the vectors.
    """

    def __init__(self, folder: Path | str, model: str):
        self.folder = Path(folder) / model[:KEY_LENGTH]

    def find(self, texts: Sequence[str]) -> list[np.ndarray | None]:
        """The vector of each text, float32 (n_dimensions,); None where there is none yet.

        Raises
        ------
        StorageError
            If a block is damaged.
        """
        keys = [text_key(text) for text in texts]
        wanted, found = set(keys), {}
        for path in sorted(self.folder.glob("*.npz")):
            names, vectors = _read_block(path)
            found |= {name: row for name, row in zip(names, vectors, strict=True) if name in wanted}
        return [found.get(key) for key in keys]

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """Keep the vectors (n_texts, n_dimensions) of some texts as one more block.

        Raises
        ------
        StorageError
            If the disk is full or the folder cannot be written.
        """
        keys = np.array([text_key(text) for text in texts], dtype=f"S{KEY_LENGTH}")
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:32]
        with atomic_path(self.folder / f"{name}.npz") as temporary, temporary.open("wb") as handle:
            np.savez(handle, keys=keys, vectors=np.asarray(vectors, dtype=np.float32))


def _read_block(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            keys, vectors = arrays["keys"], arrays["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        message = f"{path} is not a block of embeddings ({error}); remove it: its texts are embedded again"
        raise StorageError(message) from error
    if vectors.ndim != 2 or len(keys) != len(vectors):
        raise StorageError(f"{path} is damaged; remove it: its texts are embedded again")
    return [key.decode() for key in keys.tolist()], vectors
