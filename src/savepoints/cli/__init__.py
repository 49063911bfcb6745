"""The command line: it prints and wires, and decides nothing."""

import sys


def main() -> None:
    """Run the command line, or say what it needs."""
    try:
        from savepoints.cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit('The command line needs typer and rich: pip install "savepoints[cli]"')
    app(prog_name="savepoints")
