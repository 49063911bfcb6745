"""``python -m savepoints.cli`` is ``savepoints``."""

from savepoints_command import main

main()
