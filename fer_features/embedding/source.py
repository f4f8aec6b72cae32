"""What a pass is given: faces, or where to read them from."""

import os
from dataclasses import dataclass

from tqdm import tqdm

from fer_features.errors import SourceError
from fer_features.faces.dataset import FaceDataset
from fer_features.faces.reading import read_faces, source_name, source_sha256

Source = FaceDataset | str | os.PathLike[str]


@dataclass
class GivenSource:
    """A source, recognised by its sha256 before it is parsed, and read once."""

    name: str
    sha256: str
    limit: int | None
    skip_bad: bool
    progress: bool
    path: str | os.PathLike[str] = ""
    read: FaceDataset | None = None

    @classmethod
    def of(cls, source: Source, limit: int | None, skip_bad: bool, progress: bool) -> "GivenSource":
        if isinstance(source, FaceDataset):
            skipped = source.skipped > 0
            return cls(source.name, source.sha256, source.limit, skipped, progress, read=source)
        sha256 = source_sha256(source)
        return cls(source_name(source), sha256, limit, skip_bad, progress, path=source)

    def faces(self) -> FaceDataset:
        if self.read is None:
            with tqdm(
                desc="Reading",
                unit="",
                unit_scale=True,
                delay=1,
                leave=False,
                disable=not self.progress,
            ) as bar:

                def show(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                self.read = read_faces(
                    self.path, limit=self.limit, skip_bad=self.skip_bad, progress=show
                )
        if not len(self.read):
            raise SourceError(f"{self.name}: no faces, expected at least one.")
        return self.read
