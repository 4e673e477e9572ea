"""The notebooks keep to the conventions, and the runner keeps its promises."""

import base64
import json
import re
import sys
from pathlib import Path

import gallery
import kernels
import nbformat
import numpy as np
import papermill
import pytest
import run
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from fixlip import paths, plots

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# 01 draws toys, whose names it gives itself
TAKING_CAPTIONS = [path for path in NOTEBOOKS if not path.stem.startswith("01")]
MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(home|Users|root|tmp|mnt|opt|var/folders)/|[A-Z]:\\+Users"
    f"|{re.escape(str(ROOT))}/|{re.escape(sys.prefix)}/"
)
MAX_LINES, MAX_BYTES = 25, 300_000


def texts(bundle) -> list[str]:
    """All text of an output, images left out."""
    if bundle.output_type == "stream":
        return [bundle.text]
    data = bundle.get("data", {})
    return [json.dumps(v, ensure_ascii=False) for k, v in data.items() if k[:6] != "image/"]


def size(bundle) -> int:
    """Bytes of the largest representation of an output."""
    data = bundle.get("data", {"text/plain": bundle.get("text", "")})
    return max(
        len(base64.b64decode(v)) if k in ("image/png", "image/jpeg") else len(json.dumps(v))
        for k, v in data.items()
    )


def faults(notebook) -> list[str]:
    """Everything in which a notebook departs from the conventions of notebooks/README.md."""
    found = []
    title = notebook.cells[0] if notebook.cells else None
    if title is None or title.cell_type != "markdown" or not title.source.startswith("# "):
        found.append("does not begin with a title")
    try:
        for name, value in run.parameters(notebook).items():
            if not isinstance(value, str | int | float | bool | list | None):
                found.append(f"parameter {name} is not a flat literal")
    except ValueError as error:
        found.append(str(error))
    if set(notebook.metadata) != {"kernelspec", "language_info"}:
        found.append(f"metadata has {', '.join(notebook.metadata)}: make notebooks")
    elif notebook.metadata.kernelspec.name != "python3":
        found.append(f"its kernel is {notebook.metadata.kernelspec.name}, not python3")
    count = 0
    for number, cell in enumerate(notebook.cells):
        where = f"cell {number}"
        tags = cell.metadata.get("tags", [])
        if {"papermill", "execution"} & set(cell.metadata) or "injected-parameters" in tags:
            found.append(f"{where} has traces of a run: make notebooks")
        if MACHINE_PATH.search(cell.source):
            found.append(f"{where} names a path of one machine")
        if cell.cell_type != "code":
            continue
        if cell.source.count("\n") >= MAX_LINES:
            found.append(f"{where} has more than {MAX_LINES} lines")
        count += bool(cell.source.strip())
        if cell.execution_count != count and cell.source.strip():
            found.append(f"{where} was not run in order, from the top: make notebooks")
        if (
            "nbval-check-output" in tags or "NBVAL_CHECK_OUTPUT" in cell.source
        ) and not cell.outputs:
            found.append(f"{where} has no output to check")
        for bundle in cell.outputs:
            if bundle.output_type == "error":
                found.append(f"{where} failed: {bundle.ename}: {bundle.evalue}")
                continue
            if any(MACHINE_PATH.search(text) for text in texts(bundle)):
                found.append(f"{where} prints a path of one machine")
            if size(bundle) > MAX_BYTES:
                found.append(f"{where} has an output of {size(bundle) // 1000} kB")
    return found


def test_notebooks_keep_to_the_conventions():
    found = {}
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        if wrong := faults(notebook):
            found[path.name] = wrong
    assert found == {}


def test_papermill_reads_the_same_parameters():
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        assert list(papermill.inspect_notebook(notebook)) == list(run.parameters(notebook))


def test_every_fault_is_found():
    """Negative control: a notebook that breaks every rule."""
    image = base64.b64encode(bytes(MAX_BYTES + 1)).decode()
    bad = new_notebook(
        cells=[
            new_code_cell("masks = 2 ** 4", metadata={"tags": ["parameters"]}, execution_count=1),
            new_code_cell("x = 1\n" * 30, execution_count=3, metadata={"papermill": {}}),
            new_code_cell("# NBVAL_CHECK_OUTPUT\nopen('/home/me/x.jpg')", execution_count=3),
            new_code_cell(
                "show()",
                execution_count=4,
                outputs=[
                    new_output("display_data", {"image/png": image}),
                    new_output("stream", text="saved /home/me/figure.pdf"),
                    new_output("error", ename="KeyError", evalue="'a'", traceback=[]),
                ],
            ),
        ],
        metadata={"papermill": {}},
    )
    assert faults(bad) == [
        "does not begin with a title",
        "parameters must be one-line 'name = literal', not: masks = 2 ** 4",
        "metadata has papermill: make notebooks",
        "cell 1 has traces of a run: make notebooks",
        "cell 1 has more than 25 lines",
        "cell 1 was not run in order, from the top: make notebooks",
        "cell 2 names a path of one machine",
        "cell 2 has no output to check",
        "cell 3 has an output of 300 kB",
        "cell 3 prints a path of one machine",
        "cell 3 failed: KeyError: 'a'",
    ]


def notebook(parameters: str, *sources: str):
    """A notebook as the conventions want it: title, parameters, code."""
    return new_notebook(
        cells=[
            new_markdown_cell("# A title"),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *map(new_code_cell, sources),
        ],
        metadata={"kernelspec": kernels.SPEC},
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkout with a space and braces in its path, three notebooks, and `run` called in it."""
    clone = tmp_path / "a {clone}"
    (clone / "notebooks").mkdir(parents=True)
    (clone / "pyproject.toml").touch()
    (clone / "notebooks" / "run.py").touch()
    show = "print(caption)\nprint(model, image != '')"
    save = (
        "import os, pathlib, sys\n"
        "figures = pathlib.Path(os.environ['FIXLIP_OUTPUT'])\n"
        "figures.mkdir(parents=True, exist_ok=True)\n"
        "(figures / 'made.txt').write_text(sys.executable);"
    )
    own = "image = ''\ncaption = 'a dog'  # text\nmodel: str = 'demo'\nmosaics: int = 1"
    quick = notebook(own, show, save)
    broken = notebook("masks: int = 4\np: float = 0.5", "1 + 1", "raise ValueError(f'p is {p}')")
    for name, content in {"00_quickstart": quick, "01_broken": broken, "02_fine": quick}.items():
        nbformat.write(content, clone / "notebooks" / f"{name}.ipynb")
    monkeypatch.chdir(clone)
    monkeypatch.setattr(run, "ROOT", clone)
    set_by_run = ("FIXLIP_OUTPUT", "JUPYTER_PATH", "SOURCE_DATE_EPOCH", "PYTHONWARNINGS")
    for name in (*set_by_run, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # undone afterwards
        monkeypatch.delenv(name)
    # a user's own kernel named python3, which belongs to something else and must not be taken
    decoy = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    decoy.parent.mkdir(parents=True)
    decoy.write_text('{"argv": ["false"], "display_name": "Other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    return clone


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_run_goes_on_after_a_failure(folder, capsys, workers):
    before = {path.name: path.read_bytes() for path in folder.glob("notebooks/*")}
    assert run.main(["figures", "01", "02_fine", "--workers", str(workers)]) == 1
    said = capsys.readouterr().out
    assert "/2] 01_broken ... FAILED" in said and "cell In [3]: ValueError: p is 0.5" in said
    assert "/2] 02_fine ... ok" in said and "1 of 2 notebooks failed: 01_broken" in said
    assert "[1/2]" in said and "[2/2]" in said
    assert before == {path.name: path.read_bytes() for path in folder.glob("notebooks/*")}
    copy = nbformat.read(folder / "runs" / "notebooks" / "02_fine.ipynb", as_version=4)
    assert copy.cells[2].outputs[0].text == "a dog\ndemo False\n"
    assert faults(copy) == []
    # the kernel is this interpreter, and nothing that is committed has changed
    assert (folder / "runs" / "figures" / "made.txt").read_text() == sys.executable
    assert not (folder / "figures").exists() and not list(folder.glob("**/*.part"))


@pytest.mark.slow
def test_refreshing_in_place_twice_changes_nothing(folder):
    path = folder / "notebooks" / "02_fine.ipynb"
    assert run.main(["refresh", "02"]) == 0
    once = path.read_bytes()
    assert (folder / "figures" / "made.txt").is_file()
    assert faults(nbformat.read(path, as_version=4)) == []
    assert run.main(["refresh", "02"]) == 0
    assert path.read_bytes() == once


@pytest.mark.slow
def test_any_words_are_passed_on_as_parameters(folder, capsys):
    caption = """a "red" star's {5}$ — 星\n\\n=%"""
    (folder / "été photo.jpg").touch()
    settings = ["--set", "image=été photo.jpg", "--set", f"caption={caption}"]
    assert run.main(["figures", "00", *settings]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("the result is in ")
    results = Path(said.removeprefix("the result is in "))
    copy = nbformat.read(results / "00_quickstart.ipynb", as_version=4)
    assert copy.cells[3].outputs[0].text == f"{caption}\ndemo True\n"
    assert (results / "made.txt").exists() and not (folder / "figures").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["figures", "01", "--set", "mask=8"],
            "unknown parameter mask; this notebook has masks, p",
        ),
        (["figures", "01", "--set", "masks=many"], "expected masks=value with a value like 4"),
        (["figures", "--set", "masks=8"], "--set goes with one notebook"),
        (["figures", "07"], "no notebook called 07; there are 00_quickstart, 01_broken, 02_fine"),
        (["data", "02"], "none of these notebooks has a parameter recompute"),
        (["figures", "02", "--set", "image=no.jpg"], "image: there is no image"),
        (["figures", "02", "--set", "model=local-dir:gone"], "model: there is no folder"),
        (["figures", "02", "--set", "pretrained=weights.pt"], "unknown parameter pretrained"),
        (["figures", "02", "--out", "pyproject.toml"], "cannot write into"),
    ],
)
def test_mistakes_are_told_before_anything_runs(folder, capsys, arguments, message):
    assert run.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (folder / "runs").exists()


def test_unknown_parameters_are_refused_by_run(folder, capsys):
    source = folder / "notebooks" / "02_fine.ipynb"
    folders = {"copies": folder / "runs", "figures": folder / "runs"}
    assert run.run([source], **folders, values={"captoin": "a"}) == ["02_fine"]
    assert "unknown parameter captoin" in capsys.readouterr().out


def test_settings_take_the_type_of_the_default():
    content = notebook("n = 4\np = 0.5\nname = 'x'\nsure = False\nsizes = [1, 2]\nnothing = None")
    settings = ["n=8", "p=1", "name=7", "sure=True", "sizes=[3]", "nothing=a=b"]
    expected = {"n": 8, "p": 1.0, "name": "7", "sure": True, "sizes": [3], "nothing": "a=b"}
    values = run.parse(content, settings)
    assert values == expected and {k: type(v) for k, v in values.items()} == {
        k: type(v) for k, v in expected.items()
    }


@pytest.mark.parametrize("line", ["a = b", "a, b = 1, 2", "a = [1,\n2]", "import os", "a: int"])
def test_parameters_are_one_line_literals(line):
    with pytest.raises(ValueError, match="one-line 'name = literal'"):
        run.parameters(notebook(line))


def test_output_follows_the_environment(folder, monkeypatch, tmp_path):
    assert paths.output("a/b.pdf") == folder / "runs" / "figures" / "a" / "b.pdf"
    monkeypatch.setenv("FIXLIP_OUTPUT", str(tmp_path / "elsewhere"))
    assert paths.output("b.pdf") == tmp_path / "elsewhere" / "b.pdf"
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.slow
def test_data_is_measured_anew_and_put_in_its_place(folder):
    (folder / "data").mkdir()
    measure = (
        "from fixlip.paths import output\n"
        "output('data/table.json').write_text(str(recompute))\n"
        "output('figure.json').write_text('')"
    )
    content = notebook("recompute: bool = False", measure)
    nbformat.write(content, folder / "notebooks" / "03_long.ipynb")
    assert run.main(["data"]) == 0
    assert [p.name for p in (folder / "data").iterdir()] == ["table.json"]
    assert (folder / "data" / "table.json").read_text() == "True"
    assert [p.name for p in (folder / "runs" / "data").iterdir()] == ["03_long.ipynb"]


# --- the page of figures, and how far they are from the committed ones ----------------------------


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Folders of new and of committed figures, and a function that draws into one of them."""

    def draw(folder, name, y, **options):
        monkeypatch.setenv("FIXLIP_OUTPUT", str(tmp_path / folder))
        figure = Figure()
        figure.subplots().plot(range(len(y)), y)
        figure.axes[0].set_title("a < b")
        plots.save(figure, name, **options)

    return tmp_path / "new", tmp_path / "old", draw


def test_new_numbers_are_compared_with_the_committed_ones(drawn):
    new, old, draw = drawn
    for name, was, now in (
        ("same", [1.0, 3.0], [1.0, 3.0]),
        ("moved", [1.0, 3.0], [1.0, 3.02]),  # by a hundredth of its range
        ("flat", [2.0, 2.0], [2.0, 2.02]),  # no range: of its size
        ("longer", [1.0, 3.0], [1.0, 2.0, 3.0]),
        ("holes", [1.0, 3.0], [1.0, np.nan]),
    ):
        draw("old", name, was)
        draw("new", name, now)
    draw("new", "unknown", [1.0, 2.0])
    draw("old", "gone", [1.0, 2.0])
    draw("new", "seconds", [1.0, 2.0], compare=False)
    names = ["same", "moved", "flat", "longer", "holes", "unknown", "gone", "seconds"]
    line = gallery.compare(new, old, names)
    assert "numbers of 3 figures against the committed ones" in line and "\n" not in line
    assert "largest difference 0.01 of an array's range" in line and "median 0.01" in line
    assert "2 missing (unknown, gone); 2 of another shape (longer, holes)" in line
    assert line.endswith("1 of times left out")
    assert gallery.compare(new, old, ["same"]).endswith("0 missing; 0 of another shape")


def test_rounding_errors_are_no_numbers_that_differ():
    old = {"map": [0.2, 0.9], "nothing": [1e-16, 3e-16]}
    new = {"map": [0.2, 0.9], "nothing": [2e-16, 1e-16]}
    assert gallery.distance(new, old) < 1e-6
    assert gallery.distance(new, {"map": [0.2, 0.8], "nothing": [0.0, 0.0]}) > 0.1


def test_the_page_holds_every_figure_with_its_notebook_and_its_text(drawn, tmp_path):
    new, _, draw = drawn
    for name in ("one", "two"):
        draw("new", name, [1.0, 2.0])
    content = notebook("a: int = 1", 'plots.save(fig, "one")', 'plots.save(fig, "never made")')
    content.cells.insert(2, new_markdown_cell("Some text.\n\n## Errors & bars"))
    nbformat.write(content, tmp_path / "03_x.ipynb")
    page = gallery.write_page(new, [tmp_path / "03_x.ipynb"], "../notebooks").read_text()
    assert page.count("<img ") == 1 and 'src="data:image/png;base64,' in page
    assert 'alt="a &lt; b"' in page and "Errors &amp; bars" in page
    assert '<h2>A title</h2>\n<p><a href="../notebooks/03_x.ipynb">03_x</a>' in page
    assert "src=" not in page.replace('src="data:', "")  # self-contained


def test_every_committed_figure_is_saved_by_a_notebook():
    saved = {
        name for path in NOTEBOOKS for name in gallery.places(nbformat.read(path, as_version=4))
    }
    assert {path.stem for path in (ROOT / "figures").glob("*.png")} == saved
    assert saved == {path.stem for path in (ROOT / "figures").glob("*.pdf")}


# --- kernels, and what is kept of a run that fails ------------------------------------------------


def add(folder, name, *sources):
    """One more notebook of the checkout."""
    nbformat.write(notebook("masks: int = 4", *sources), folder / "notebooks" / f"{name}.ipynb")


DRAW = """
import matplotlib.pyplot as plt
from fixlip import plots
fig, ax = plt.subplots()
ax.plot([1, 2])
plots.save(fig, "05_line")
"""


@pytest.mark.slow
def test_figures_stay_in_the_notebook_whatever_backend_the_shell_sets(folder, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    add(folder, "05_figure", DRAW)
    assert run.main(["figures", "05"]) == 0
    copy = nbformat.read(folder / "runs" / "notebooks" / "05_figure.ipynb", as_version=4)
    kinds = {kind for output in copy.cells[2].outputs for kind in output.get("data", ())}
    assert "image/png" in kinds


@pytest.mark.slow
def test_a_notebook_that_hides_its_figures_is_not_stored(folder, capsys):
    add(folder, "05_figure", "import matplotlib\nmatplotlib.use('Agg')", DRAW)
    before = (folder / "notebooks" / "05_figure.ipynb").read_bytes()
    assert run.main(["refresh", "05"]) == 1
    assert "figures drawn but not shown, by another backend: 05_line" in capsys.readouterr().out
    assert (folder / "notebooks" / "05_figure.ipynb").read_bytes() == before


@pytest.mark.slow
def test_a_kernel_that_dies_is_one_line_with_its_last_words(folder, capsys):
    dying = "import os, sys\nos.write(2, b'no more memory\\n')\nos._exit(3)"
    add(folder, "05_dies", "1 + 1", dying)
    assert run.main(["figures", "05"]) == 1
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("    "))
    assert "cell In [3]" in line and "no more memory" in line
    assert (folder / "runs" / "notebooks" / "05_dies.log").is_file()


@pytest.mark.slow
def test_a_kernel_that_ends_without_words_is_told_by_its_exit_status(folder, capsys):
    """ipykernel's warning about connections was given as the cause."""
    add(folder, "05_ends", "import os\nos._exit(3)")
    assert run.main(["figures", "05"]) == 1
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("    "))
    assert "it ended with the exit status 3" in line


@pytest.mark.parametrize("path", TAKING_CAPTIONS, ids=lambda path: path.stem)
def test_names_of_players_are_drawn_as_they_are(path):
    """`cheap $$ food` ended notebook 04: its own titles took the words for a formula."""
    drawing = re.compile(
        r"(set_title|set_[xy]ticks|\.text|annotate)\(.*(\.names|\.players)\b(?!\[:n_I)"
    )
    cells = [cell.source for cell in gallery.read(path).cells if cell.cell_type == "code"]
    bare = [line for cell in cells for line in cell.splitlines() if drawing.search(line)]
    assert not bare, "use plots.shown(name), and plots.name_style(name) for the text"


def test_a_name_that_begins_another_stands_for_its_own_notebook():
    assert [path.stem for path in run.find(["01_theory"])] == ["01_theory"]
    assert len(run.find(["01"])) == 2


@pytest.mark.slow
def test_a_kernel_that_cannot_start_says_why(folder, capsys, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import sys\nsys.exit('this machine is closed')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    assert run.main(["figures", "02"]) == 1
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("    "))
    assert "before the first cell" in line and "this machine is closed" in line


@pytest.mark.slow
def test_a_cell_that_takes_too_long_is_told_with_the_option(folder, capsys):
    add(folder, "05_slow", "import time\ntime.sleep(60)")
    assert run.main(["figures", "05", "--timeout", "2"]) == 1
    assert "took longer than the 2 s of --timeout" in capsys.readouterr().out


def test_what_is_no_notebook_is_told(folder, capsys):
    (folder / "notebooks" / "05_text.ipynb").write_text("{")
    assert run.main(["figures", "05"]) == 2
    said = capsys.readouterr().err
    assert "05_text.ipynb is not a notebook that can be read" in said and said.count("\n") == 1


@pytest.mark.slow
def test_results_go_to_the_folder_of_the_option(folder, tmp_path):
    before = sorted(folder.rglob("*"))
    assert run.main(["figures", "02", "--out", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "notebooks" / "02_fine.ipynb").is_file()
    assert (tmp_path / "mine" / "figures" / "made.txt").is_file()
    assert sorted(folder.rglob("*")) == before


def test_paths_mean_what_they_mean_where_they_are_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/model", "here", "data", "ViT-B-32", "demo-clip"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("home/a.png", "weights.pt"):
        (tmp_path / name).touch()
    content = notebook(
        "model = ''\nmodels = ['a']\nimage = ''\npretrained = ''\ndata = ''\nfolder = ''\np = 0.5"
    )
    settings = {
        "model=local-dir:~/model": f"local-dir:{tmp_path}/home/model",
        "model=./here": f"{tmp_path}/here",
        "model=here": f"{tmp_path}/here",
        "model=demo-clip": "demo-clip",
        "model=hf-hub:org/name": "hf-hub:org/name",
        "model=ViT-B-32": "ViT-B-32",
        "models=['local-dir:here', 'ViT-B-32:weights.pt', 'ViT-B-32:openai']": [
            f"local-dir:{tmp_path}/here",
            f"ViT-B-32:{tmp_path}/weights.pt",
            "ViT-B-32:openai",
        ],
        "image=~/a.png": f"{tmp_path}/home/a.png",
        "pretrained=weights.pt": f"{tmp_path}/weights.pt",
        "pretrained=openai": "openai",
        "data=data": f"{tmp_path}/data",
        "folder=new/folder": f"{tmp_path}/new/folder",
        "folder=": "",
    }
    for setting, expected in settings.items():
        (value,) = run.parse(content, [setting]).values()
        assert value == expected, setting
    for setting in ("image=gone.png", "data=gone", "pretrained=gone.pt", "model=local-dir:gone"):
        with pytest.raises(ValueError, match="there is no"):
            run.parse(content, [setting])


def test_every_parameter_that_holds_a_path_is_known_as_one():
    told = re.compile(r"path|folder|checkpoint", re.IGNORECASE)
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            if "parameters" in cell.metadata.get("tags", []):
                for line in cell.source.splitlines():
                    name, _, comment = line.partition(":")[0], *line.partition("#")[1:]
                    assert name in run.PATHS or not told.search(comment), (path.name, line)


def test_stored_figures_are_those_that_plots_save_wrote():
    """Tests draw in fewer dots per inch, and such thumbnails were stored once."""
    for path in sorted((ROOT / "figures").glob("*.png")):
        with Image.open(path) as figure:
            assert round(figure.info["dpi"][0]) == 144, path.name
