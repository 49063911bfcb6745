"""What the tour shows as Python is what it runs."""

from __future__ import annotations

import ast
import inspect

from savepoints.cli import story


def steps() -> list[ast.Call]:
    tree = ast.parse(inspect.getsource(story))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Step"]


def test_the_code_shown_is_the_code_that_runs() -> None:
    found = steps()
    assert len(found) == 9
    for step in found:
        code, call = step.args[1], step.args[2]
        assert isinstance(code, ast.Constant)
        assert isinstance(code.value, str)
        assert isinstance(call, ast.Lambda)
        assert ast.unparse(ast.parse(code.value)) == ast.unparse(call.body)
