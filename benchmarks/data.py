"""What the benchmarks run on: real FER2013 where it is beside the checkout, else drawn faces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "artifacts" / "bench"
_SHARED = ROOT.parent / "shared"


def csv(repeat: int) -> Path:
    """A CSV of about 32,000 rows, some number of times; made once."""
    WORK.mkdir(parents=True, exist_ok=True)
    script = _SHARED / "data" / "to_csv.py"
    path = WORK / f"{'fer2013' if script.exists() else 'drawn'}-{repeat}.csv"
    if path.exists():
        return path
    temporary = path.with_suffix(".part")
    if script.exists():
        subprocess.run([sys.executable, script, temporary, "--repeat", str(repeat)], check=True)
    elif repeat == 1:
        command = [sys.executable, "-m", "fer_pipeline.data.synthetic", "csv", temporary]
        subprocess.run([*command, "--rows", "32298"], check=True)
    else:
        _repeat(csv(1), temporary, repeat)
    return temporary.rename(path)


def _repeat(source: Path, target: Path, repeat: int) -> None:
    """Copies of all rows; in the k-th the pixels move k places on, so that they differ."""
    header, *rows = source.read_text().splitlines()
    with target.open("w") as out:
        out.write(header + "\n")
        for shift in range(repeat):
            for row in rows:
                emotion, pixels, usage = row.split(",")
                values = pixels.split(" ")
                out.write(f"{emotion},{' '.join(values[shift:] + values[:shift])},{usage}\n")


def yardstick(name: str) -> Path:
    """The script of a yardstick: the shared one, else our own."""
    shared = _SHARED / "bench" / f"limit_{name}.py"
    return shared if shared.exists() else ROOT / "benchmarks" / f"yardstick_{name}.py"
