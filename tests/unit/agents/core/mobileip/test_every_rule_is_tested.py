"""Every number of the checklist of RFC 7629 and every reply code has a test that names it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from agents.core.mobileip.registration_codes import Code

FOLDER = Path(__file__).parent
RULES = range(1, 37)
NOT_IN_USE = {Code.FA_RESERVED_73}
"""Of RFC 2002; received it is a refusal like any other."""


def functions() -> Iterator[ast.FunctionDef]:
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node


def rules_of(name: str) -> set[int]:
    """`test_28_and_31_...`, `test_05_06_07_...`."""
    found = re.match(r"test_((?:\d\d_|and_)+)", name)
    return {int(number) for number in re.findall(r"\d\d", found[1])} if found else set()


def codes_of(test: ast.FunctionDef) -> set[int]:
    """`test_code_76_...`, `test_codes_74_75_...`, and values of the parameter `code`."""
    found = re.match(r"test_codes?_((?:\d+_|and_)+)", test.name)
    result = {int(number) for number in re.findall(r"\d+", found[1])} if found else set()
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and len(decorator.args) > 1 and ast.unparse(decorator.func).endswith("parametrize"):
            result |= parameters(ast.literal_eval(decorator.args[0]), decorator.args[1])
    return result


def parameters(names: str | tuple[str, ...], values: ast.expr) -> set[int]:
    """Whole numbers, and names of Code, in the place of the parameter `code`."""
    listed = [names] if isinstance(names, str) else list(names)
    if "code" not in listed or not isinstance(values, ast.List | ast.Tuple):
        return set()
    at = listed.index("code")
    rows = [row.elts[at] if isinstance(row, ast.Tuple) else row for row in values.elts]
    plain = {row.value for row in rows if isinstance(row, ast.Constant) and isinstance(row.value, int)}
    return plain | {Code[row.attr] for row in rows if isinstance(row, ast.Attribute) and row.attr in Code.__members__}


def test_every_number_of_the_checklist_has_a_test() -> None:
    named = set().union(*(rules_of(test.name) for test in functions()))
    assert set(RULES) - named == set()


def test_every_reply_code_has_a_test() -> None:
    named = set().union(*(codes_of(test) for test in functions()))
    assert set(Code) - NOT_IN_USE - named == set()
