"""Where the command `savepoints` begins: outside of the package, during whose imports Ctrl-C may come, too."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say what it needs, or that it was interrupted."""
    try:
        _run()
    except (KeyboardInterrupt, SystemExit) as end:
        if not _by_interrupt(end):
            raise
        print("savepoints: interrupted", file=sys.stderr)
        sys.exit(130)


def _run() -> None:
    try:
        from savepoints.cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit('The command line needs typer and rich: pip install "savepoints[cli]"')
    app(prog_name="savepoints")


def _by_interrupt(end: BaseException | None) -> bool:
    """Whether it comes from Ctrl-C and nobody has said so: typer makes an exit without a word of it."""
    while end is not None and not isinstance(end, KeyboardInterrupt):
        end = end.__context__
    return end is not None
