"""Exercise notebooks give nothing away: stubs run and are not yet right, solutions are."""

import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SOLUTIONS = sorted(NOTEBOOKS.glob("*_solutions.ipynb"))
PLACE = "# your code here"


def tagged(path, tag):
    """Code cells of a notebook with a tag."""
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if tag in cell.metadata.get("tags", [])]


def lines(source):
    """Lines of code without indentation, comments and what follows them."""
    found = (re.sub(r"\s*#.*", "", line).strip() for line in source.splitlines())
    return [line for line in found if line]


def printed(cell):
    return "".join(output.text for output in cell.outputs).strip()


def leaks(stub, solution, notebook):
    """Lines that only the solution adds to its stub and that stand somewhere in the notebook."""
    secret = set(lines(solution)) - set(lines(stub))
    return sorted(secret & {line for source in notebook for line in lines(source)})


@pytest.fixture(params=SOLUTIONS, ids=lambda path: path.stem)
def both(request):
    exercises = request.param.with_name(request.param.name.replace("_solutions", ""))
    return exercises, request.param


def test_there_are_exercises():
    assert SOLUTIONS


def test_every_exercise_has_one_solution_and_only_its_marked_part_differs(both):
    stubs, solutions = tagged(both[0], "exercise"), tagged(both[1], "solution")
    assert len(stubs) == len(solutions) > 0
    for stub, solution in zip(stubs, solutions, strict=True):
        assert stub.source.count(PLACE) == 1 and PLACE not in solution.source
        kept = [line for line in stub.source.splitlines() if PLACE not in line]
        assert set(kept) <= set(solution.source.splitlines())
        assert set(lines(solution.source)) - set(lines(stub.source))


def test_stubs_ran_and_wait_for_an_answer(both):
    for stub in tagged(both[0], "exercise"):
        assert stub.execution_count and printed(stub) == "not yet"


def test_solutions_are_right_by_the_same_check(both):
    for solution in tagged(both[1], "solution"):
        assert solution.execution_count and printed(solution) == "right"


def test_no_solution_leaks_into_the_exercises(both):
    notebook = [cell.source for cell in nbformat.read(both[0], as_version=4).cells]
    stubs, solutions = tagged(both[0], "exercise"), tagged(both[1], "solution")
    for stub, solution in zip(stubs, solutions, strict=True):
        assert leaks(stub.source, solution.source, notebook) == []


def test_a_leak_is_found():
    """Negative control: an answer left in the notebook, indented and with a comment."""
    stub, solution = f"x = 0.0  {PLACE}\ncheck(x)", "x = sum(values)\ncheck(x)"
    assert leaks(stub, solution, [stub]) == []
    assert leaks(stub, solution, [stub, "if True:\n    x = sum(values)  # as said"]) == [
        "x = sum(values)"
    ]
