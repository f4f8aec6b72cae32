"""Where benchmarks write: RESULTS.md, a section each, and the machine they ran on."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def machine() -> str:
    """Return one line that names the machine, the versions and the day."""
    cpu = platform.processor() or platform.machine()
    names = [line for line in _cpu_info().splitlines() if line.startswith("model name")]
    cpu = " ".join([names[0].partition(": ")[2] if names else cpu, *cpu_flags()])
    packages = ("fer-features", "tensorflow", "keras", "openvino", "nncf", "scikit-learn")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    today = datetime.now(UTC).date().isoformat()
    return f"Machine: {cpu}, {os.cpu_count()} cores. {versions}. {today}."


def cpu_flags() -> list[str]:
    """Return which of the instructions that decide a rate this processor has."""
    known = _cpu_info()
    return [flag for flag in ("avx2", "avx512f", "avx512_vnni") if flag in known]


def _cpu_info() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.exists() else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(title: str, text: str) -> None:
    """Replace one section of RESULTS.md, and keep the others."""
    head = "# Benchmarks\n\nWritten by `make bench`; figures of one machine, to compare by ratio.\n"
    sections = {}
    if RESULTS.exists():
        for part in RESULTS.read_text().split("\n## ")[1:]:
            name, _, body = part.partition("\n")
            sections[name] = body.strip()
    sections[title] = text.strip()
    body = "".join(f"\n## {name}\n\n{section}\n" for name, section in sections.items())
    RESULTS.write_text(head + body)


def drawn(home: Path, faces: int = 1050) -> Path:
    """Draw faces, for where there are no photographs, and return the CSV file of them."""
    from fer_features.sample.faces import draw_faces, write_csv

    write_csv(draw_faces(faces), home / "faces.csv")
    return home / "faces.csv"
