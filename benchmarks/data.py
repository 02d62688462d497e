"""The input of the benchmarks: FER2013 if it is beside the checkout, else synthetic faces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "artifacts" / "bench"
_SHARED = ROOT.parent / "shared"
_SYNTHETIC_ROWS = 32_298


def write_csv(repeat: int) -> Path:
    """Return a CSV of about 32,000 rows, repeated; it is written only once.

    Args:
        repeat: Number of repetitions.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    script = _SHARED / "data" / "to_csv.py"
    path = WORK / f"{'fer2013' if script.exists() else 'synthetic'}-{repeat}.csv"
    if path.exists():
        return path
    temporary = path.with_suffix(".part")
    if script.exists():
        subprocess.run([sys.executable, script, temporary, "--repeat", str(repeat)], check=True)
    elif repeat == 1:
        command = [sys.executable, "-m", "fer_pipeline.data.synthetic", "csv", temporary]
        subprocess.run([*command, "--rows", str(_SYNTHETIC_ROWS)], check=True)
    else:
        _repeat_rows(write_csv(1), temporary, repeat)
    return temporary.rename(path)


def _repeat_rows(source: Path, target: Path, repeat: int) -> None:
    """Write copies of all rows; the pixels of copy k are shifted by k, so that copies differ."""
    header, *rows = source.read_text().splitlines()
    with target.open("w") as file:
        file.write(header + "\n")
        for shift in range(repeat):
            for row in rows:
                emotion, pixels, usage = row.split(",")
                values = pixels.split(" ")
                file.write(f"{emotion},{' '.join(values[shift:] + values[:shift])},{usage}\n")


def find_yardstick(name: str) -> Path:
    """Return the script of a yardstick: the shared one if there is one, else the repository's."""
    shared = _SHARED / "bench" / f"limit_{name}.py"
    return shared if shared.exists() else ROOT / "benchmarks" / f"yardstick_{name}.py"
