"""Write synthetic faces to files: a FER2013-style CSV, or a folder of crops."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fer_pipeline.data.synthetic.files import write_csv, write_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files that the command-line arguments describe, and return the exit status.

    Args:
        argv: Command-line arguments; `sys.argv[1:]` by default.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fer_pipeline.data.synthetic", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    csv_parser = commands.add_parser("csv", help="write a FER2013-style CSV file")
    csv_parser.add_argument(
        "--rows", type=int, default=1000, help="data rows, broken ones included"
    )
    csv_parser.add_argument("--broken", type=int, default=0, help="rows damaged on purpose")
    folder_parser = commands.add_parser("folder", help="write a folder of face crops")
    folder_parser.add_argument("--per-class", type=int, default=10, help="crops per emotion")
    folder_parser.add_argument("--flat", action="store_true", help="write all crops to one folder")
    for command_parser in (csv_parser, folder_parser):
        command_parser.add_argument("out", metavar="OUT", help="file or folder to write")
        command_parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        if options.command == "csv":
            write_csv(options.out, options.rows, options.seed, options.broken)
        else:
            write_folder(options.out, options.per_class, options.seed, flat=options.flat)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
