"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from savepoints.cli.app import app


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith(f"savepoints {version('savepoints')} (SQLAlchemy {version('sqlalchemy')}, Python ")


def test_runs_as_a_module() -> None:
    done = python("-m", "savepoints.cli", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("savepoints ")


def test_help_tells_every_option() -> None:
    assert "tour" in CliRunner().invoke(app, ["--help"]).output
    shown = CliRunner().invoke(app, ["tour", "--help"]).output
    assert all(option in shown for option in ("--url URL", "--async", "--keep"))
    shown = CliRunner().invoke(app, ["load", "--help"]).output
    options = ("FILE", "--into URL", "--table NAME", "--rejects OUT", "--max-rejected LIMIT", "--dry-run", "--create")
    assert all(option in shown for option in (*options, "--explain", "--null", "--on-conflict", "--show-values"))


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_says_what_to_install(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from savepoints_command import main; main()"
    done = python("-c", program, "tour")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == 'The command line needs typer and rich: pip install "savepoints[cli]"\n'


def without_greenlet(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; sys.modules['greenlet'] = None; from savepoints_command import main; main()"
    return python("-c", program, *arguments)


def test_runs_without_greenlet() -> None:
    done = without_greenlet("tour")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("John Doe is stored.\n")


def test_says_what_async_needs() -> None:
    done = without_greenlet("tour", "--async")
    assert done.returncode == 2
    assert "greenlet" in done.stderr
    assert done.stderr.count("\n") == 1


#: Ctrl-C when a module is looked for, or a function is called.
INTERRUPTED = """
import builtins, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
def interrupt(*others, **more):
    os.kill(os.getpid(), signal.SIGINT)
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            interrupt()
sys.meta_path.insert(0, Finder())
from savepoints_command import main
if {function!r}:
    from savepoints.cli import loading
    setattr(loading, {function!r}, interrupt)
main()
"""

EARLY = {
    module: (module, "") for module in ("savepoints", "sqlalchemy", "typer", "rich.progress", "savepoints.cli.loading")
}


@pytest.mark.parametrize(("module", "function"), [*EARLY.values(), ("", "Order")], ids=[*EARLY, "behind the imports"])
def test_control_c_before_it_begins_is_told_in_one_line(module: str, function: str) -> None:
    program = INTERRUPTED.format(module=module, function=function)
    done = python("-c", program, "load", "rows.csv", "--into", "sqlite:///no.db", "--table", "t")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "savepoints: interrupted\n")
