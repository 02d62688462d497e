"""Input of the benchmarks: FER2013 if the environment variable FER2013 names its CSV file.

`make bench FER2013=/path/to/fer2013.csv` sets the variable. Without it, FER2013 comes from the
folder `shared` next to the checkout if that exists. Otherwise the benchmarks use synthetic faces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "artifacts" / "bench"
_SHARED = ROOT.parent / "shared"
_CSV_SCRIPT = _SHARED / "data" / "to_csv.py"
_SYNTHETIC_ROWS = 32_298


def describe_faces() -> str:
    """Return the kind of the faces that the benchmarks use: "fer2013" or "synthetic"."""
    return "fer2013" if os.environ.get("FER2013") or _CSV_SCRIPT.exists() else "synthetic"


def ensure_csv(repeat: int) -> Path:
    """Write a FER2013 CSV of about 32,000 rows, unless an earlier call has written it.

    Args:
        repeat: Number of times that the rows are repeated.

    Returns:
        The path of the CSV file.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    path = WORK / f"{describe_faces()}-{repeat}.csv"
    if path.exists():
        return path
    temporary = path.with_suffix(".part")
    if source := os.environ.get("FER2013"):
        _repeat_rows(Path(source), temporary, repeat)
    elif _CSV_SCRIPT.exists():
        command = [sys.executable, str(_CSV_SCRIPT), str(temporary)]
        subprocess.run([*command, "--repeat", str(repeat)], check=True)
    elif repeat == 1:
        command = [sys.executable, "-m", "fer_pipeline.data.synthetic", "csv", temporary]
        subprocess.run([*command, "--rows", str(_SYNTHETIC_ROWS)], check=True)
    else:
        _repeat_rows(ensure_csv(1), temporary, repeat)
    return temporary.rename(path)


def _repeat_rows(source: Path, target: Path, repeat: int) -> None:
    """Write a CSV file with repeated rows.

    The pixels of copy k are rotated by k positions, so that the copies of a row differ.

    Args:
        source: CSV file with the original rows.
        target: CSV file to write.
        repeat: Number of copies of each row.
    """
    header, *rows = source.read_text().splitlines()
    with target.open("w") as file:
        file.write(header + "\n")
        for shift in range(repeat):
            for row in rows:
                emotion, pixels, usage = row.split(",")
                values = pixels.split(" ")
                file.write(f"{emotion},{' '.join(values[shift:] + values[:shift])},{usage}\n")


def find_baseline_script(name: str) -> Path:
    """Return the script of a baseline.

    Args:
        name: "feed" or "preprocess".

    Returns:
        The script in the folder `shared` if it exists, else the script of this repository.
    """
    shared_script = _SHARED / "bench" / f"limit_{name}.py"
    if shared_script.exists():
        return shared_script
    return ROOT / "benchmarks" / f"baseline_{name}.py"
