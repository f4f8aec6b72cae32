"""The demo falls back to random weights for one reason alone."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_demo_that_fails_for_another_reason_than_the_download_says_so_and_ends(
    tmp_path: Path,
) -> None:
    (tmp_path / "cache" / "imagenet.h5").mkdir(parents=True)
    environment = Path(sys.prefix)
    said = subprocess.run(
        [
            "make",
            "demo",
            f"DEMO={tmp_path}",
            f"VENV={environment}",
            "-o",
            environment / ".installed",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert said.returncode != 0
    assert "imagenet.h5: a folder, expected a file name" in said.stderr
    assert "random" not in said.stdout
    assert not list(tmp_path.glob("cache/random*"))
