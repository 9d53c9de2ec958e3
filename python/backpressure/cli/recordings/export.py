"""`backpressure export`: the rows of a recording for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from backpressure._model.arguments import masked
from backpressure.cli._command import command
from backpressure.cli._endings import Refusal, ending, terminable
from backpressure.cli.recordings._options import opened, queues_option, readable, recording_argument

__all__ = ["export"]

_EXAMPLES = """\
backpressure export week.bpr --csv week.csv
backpressure export week.bpr --csv mail.csv -q mail
backpressure export week.bpr --parquet week.parquet
"""
_PATH = click.Path(path_type=Path)


@command(_EXAMPLES)
@recording_argument
@click.option("--csv", type=_PATH, metavar="FILE", help="Write comma-separated values, with a line of names first.")
@click.option("--parquet", type=_PATH, metavar="FILE", help="Write Parquet, which needs pyarrow.")
@queues_option
def export(path: Path, csv: Path | None, parquet: Path | None, queues: tuple[str, ...]) -> None:
    """Write what was recorded for other programs.

    A row for each reading of each queue; what is not known is empty. An old file is replaced. Exits with 0 when it was
    written, 1 when the recording cannot be read, 2 for wrong usage, or without pyarrow.
    """
    with ending("export"), terminable(), readable():
        out = csv or parquet
        if out is None or (csv is not None and parquet is not None):
            raise Refusal("there is nowhere to write to: give one of --csv and --parquet")
        recording, names = opened(path, queues)
        try:
            if csv is None:
                rows = recording.to_parquet(out, names)
            else:
                with csv.open("w", encoding="utf-8", newline="") as lines:
                    rows = recording.to_csv(lines, names)
        except ModuleNotFoundError as error:
            raise Refusal(str(error)) from None
        except OSError as error:
            raise Refusal(f"{out} cannot be written: {error.strerror or error}") from None
        print(masked(f"{rows:,} rows of {len(names)} queue{'s' * (len(names) != 1)} written to {out}"))
