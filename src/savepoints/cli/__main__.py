"""``python -m savepoints.cli`` is ``savepoints``."""

from savepoints.cli import main

main()
