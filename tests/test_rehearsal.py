"""Rehearsal: the encoders of the paper, small and untrained, go through the notebooks.

The encoders have the paper's image sizes, patches, pooling, tokenizers and preprocessing, in two
narrow blocks per tower, so that the first run with real weights meets nothing new. The quickstart
runs with all seven; every other notebook with one, the encoder with the fewest patches of a family,
where the families take turns. With FIXLIP_REHEARSE=all in the environment every notebook runs with
every encoder, which takes some five times as long.
"""

import functools
import itertools
import json
import linecache
import os

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import open_clip
import pandas as pd
import pytest
import run
import timm
import torch
from safetensors.torch import save_file

import fixlip
from fixlip import plots
from fixlip.data.mosaics import demo_mosaics
from fixlip.data.selection import best_pairs, read
from fixlip.encoders.loading import preparation_of
from fixlip.explainers.methods import METHODS, PUBLISHED, explain_all
from fixlip.metrics import faithfulness, insertion_deletion, pointing, quadrants
from fixlip.paths import output, root
from fixlip.studies import study

NOTEBOOKS = {path.stem: path for path in sorted((root() / "notebooks").glob("*.ipynb"))}
TOKENIZERS = {"CLIP": None, "SigLIP": "siglip1", "SigLIP-2": "siglip2"}  # None: open_clip brings it
ENCODERS = {
    "CLIP": ("ViT-B-32", "ViT-B-16"),
    "SigLIP": ("ViT-B-16-SigLIP", "ViT-L-16-SigLIP-256"),
    "SigLIP-2": ("ViT-B-32-SigLIP2-256", "ViT-B-16-SigLIP2", "ViT-L-16-SigLIP2-256"),
}
WIDTH, HEADS, BLOCKS, VOCABULARY = 16, 2, 2, 600
MODEL = "the encoder that is rehearsed"
EACH = "one encoder of each family"
# Of every notebook, the parameters that make it quick; its own test runs the defaults.
SMALL = {
    "00_quickstart": {"model": MODEL, "masks": 64, "mosaics": 1},
    "01_theory": {"model": MODEL, "masks": 32},
    "01_theory_solutions": {},
    "02_estimator_variance": {"model": MODEL, "bands": 4, "repeats": 10, "reference": 300}
    | {"tolerances": [0.5], "compared": [MODEL]},
    "03_timing": {"model": MODEL, "smallest": 8, "largest": 9},
    "04_methods_side_by_side": {"model": MODEL, "masks": 32, "steps": 5, "finest": 8}
    | {"samples": 32, "mosaics": 2},
    "05_faithfulness": {"model": MODEL, "pairs": 2, "count": 64, "masks": 64, "joint": 128}
    | {"steps": 5},
    "06_insertion_deletion": {"model": MODEL, "pairs": 2, "masks": 64, "joint": 128, "steps": 5}
    | {"proofs": 1, "seconds": 1.0},
    "07_pointing_game": {"model": MODEL, "mosaics": 2, "players": "words", "masks": 64}
    | {"joint": 128, "samples": 32, "steps": 5},
    "08_compare_models": {"models": EACH, "masks": [64, 64], "steps": 5, "mosaics": 2, "pairs": 2}
    | {"fresh": 64},
}

# Of every notebook, the tables that it reads from data/, and the columns that name their rows;
# without any, what made the table is too long to be repeated.
TABLES = {
    "02_estimator_variance": {"02_coverage": [], "02_patches": [], "02_models": []},
    "05_faithfulness": {"05_faithfulness": ["id", "method", "distribution"]},
    "06_insertion_deletion": {"06_curves": ["way", "method", "id"], "06_optima": []},
    "07_pointing_game": {"07_pointing": ["id", "method", "objects"], "07_joint": []},
    "08_compare_models": {
        "08_pointing": ["id", "model", "method", "objects"],
        "08_pairs": ["id", "what", "model", "other"],
    },
}


def narrow(tower: str) -> str:
    """Register a tower like timm's of this name, but in narrow blocks; return its name."""

    def build(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, **options):
        options.pop("cache_dir", None)
        sizes = {"embed_dim": WIDTH, "num_heads": HEADS, "depth": BLOCKS}
        return timm.create_model(tower, **sizes, **options)

    build.__name__ = f"narrow_{tower}"
    if not timm.is_model(build.__name__):
        timm.models.register_model(build)
    return build.__name__


def small(name: str, tokenizer: str | None) -> dict:
    """The configuration of a small model like that of this name."""
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    config["embed_dim"] = WIDTH
    text |= {"layers": BLOCKS, "width": WIDTH, "heads": HEADS}
    if "timm_model_name" in vision:
        vision["timm_model_name"] = narrow(vision["timm_model_name"])
    else:
        vision |= {"layers": BLOCKS, "width": WIDTH, "head_width": WIDTH // HEADS}
    if tokenizer:
        text["vocab_size"] = VOCABULARY
    return config


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory, tokenizer_folder):
    """Write a "local-dir:" folder of a small, untrained model like one of the paper's."""

    @functools.cache
    def write(name: str, family: str) -> str:
        folder, tokenizer = tmp_path_factory.mktemp(name), TOKENIZERS[family]
        config = small(name, tokenizer)
        if tokenizer:
            source = tokenizer_folder(tokenizer, config["text_cfg"]["context_length"])
            for file in source.iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
        preprocess = preparation_of(name, "random").preprocess
        described = {"model_cfg": config, "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(described))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        return f"local-dir:{folder}"

    return write


def combinations(everything: bool = os.environ.get("FIXLIP_REHEARSE") == "all"):
    """Notebook, family and encoder of every run; a notebook without one encoder runs once."""
    pairs = [(family, name) for family, names in ENCODERS.items() for name in names]
    turns = itertools.cycle((family, names[0]) for family, names in ENCODERS.items())
    for stem in NOTEBOOKS:
        if "model" not in SMALL.get(stem, {"model": MODEL}):
            yield stem, None, None
        elif everything or stem == "00_quickstart":
            yield from ((stem, *pair) for pair in pairs)
        else:
            yield stem, *next(turns)


def fill(value, model, each):
    """Put folders in the place of MODEL and EACH."""
    if isinstance(value, list):
        return [fill(item, model, each) for item in value]
    return {MODEL: model, EACH: each}[value] if value in (MODEL, EACH) else value


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch):
    """Figures in few pixels and one format."""

    def save(figure, name, compare=True):
        figure.savefig(output(f"{name}.png"), dpi=20)

    monkeypatch.setattr(plots, "save", save)
    plt.switch_backend("agg")
    yield
    plt.close("all")


def execute(stem: str, values: dict) -> dict:
    """Run the code of a notebook with other parameters; return its variables."""
    notebook = nbformat.read(NOTEBOOKS[stem], as_version=4)
    run.check(notebook, list(values))
    variables = {"__name__": "__main__"}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        place = f"<{stem}, cell {number}>"
        # where Python, and fixlip.studies, look for the source of a function
        linecache.cache[place] = len(cell.source), None, cell.source.splitlines(True), place
        exec(compile(cell.source, place, "exec"), variables)
        if "parameters" in cell.metadata.get("tags", []):
            variables |= values
    return variables


def beside_progress(errors: str) -> list[str]:
    """Lines of what a notebook wrote to stderr, but for the bars of its studies."""
    return [line for line in errors.splitlines() if line.strip() and "items: " not in line]


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore")  # so few masks are warned of, rightly
@pytest.mark.parametrize("stem,family,name", [*combinations()])
def test_the_code_runs_with_every_family(
    stem, family, name, small_folder, monkeypatch, tmp_path, capsys
):
    if stem not in SMALL:
        pytest.fail(f"give {stem} an entry in SMALL: the parameters that make it quick")
    model = family and small_folder(name, family)
    each = [small_folder(names[0], family) for family, names in ENCODERS.items()]
    values = {key: fill(value, model, each) for key, value in SMALL[stem].items()}
    monkeypatch.setenv("FIXLIP_OUTPUT", str(tmp_path))
    monkeypatch.chdir(NOTEBOOKS[stem].parent)
    variables = execute(stem, values)
    said = capsys.readouterr()
    assert said.out and "nan" not in said.out.split() and not beside_progress(said.err)
    if family:
        assert model.endswith(variables["encoder"].name.removeprefix("local-dir:"))


class LookedAtError(Exception):
    """All tables of a notebook have been looked at."""


@pytest.mark.notebook
@pytest.mark.parametrize("stem", [stem for stem in TABLES if any(TABLES[stem].values())])
def test_the_tables_in_data_are_what_the_notebooks_measure(stem, monkeypatch):
    """Settings are the notebook's defaults, and the first pair has the rows that it has today."""
    left = dict(TABLES[stem])

    def look(name, compute, *, settings, command, recompute):
        kept = json.loads((root() / "data" / f"{name}.json").read_text())
        again = f"data/{name}.json is old: {command}"
        assert kept["settings"] == json.loads(json.dumps(settings)), again
        kept = pd.DataFrame(kept["rows"], columns=kept["columns"])
        if keys := left.pop(name):
            compare(compute(), kept, keys, again)
        if not left:
            raise LookedAtError
        return kept

    monkeypatch.setattr("fixlip.data.measured.measured", look)
    monkeypatch.setattr("fixlip.studies.study", lambda f, items, **o: study(f, items[:1], **o))
    monkeypatch.chdir(NOTEBOOKS[stem].parent)
    with pytest.raises(LookedAtError):
        execute(stem, {})


def compare(found, kept, keys, message):
    """Numbers of the same rows are the same to a hundredth of their column's size.

    Those of InteractionCAM are left out: a hundredth of them is rounding, which processors do not
    share (its docstring says why).
    """
    if "method" in found:
        found = found[found.method != "InteractionCAM"]
    both = found.merge(kept, on=keys, suffixes=("", " kept"), validate="one_to_one")
    assert len(both) == len(found) > 0, message
    for column in set(found) - set(keys):
        a, b = (np.stack(both[c].map(np.asarray).tolist()) for c in (column, f"{column} kept"))
        a, b = a.astype(float), b.astype(float)
        size = np.nanmax(np.abs(b), initial=0)
        np.testing.assert_allclose(a, b, rtol=0, atol=0.01 * size, err_msg=f"{column}; {message}")


@pytest.mark.notebook
@pytest.mark.filterwarnings("ignore")  # so few masks are warned of, rightly
@pytest.mark.parametrize("stem", ["05_faithfulness", "06_insertion_deletion", "07_pointing_game"])
def test_the_published_preset_runs_with_openais_tokenizer(
    stem, small_folder, monkeypatch, tmp_path, capsys
):
    """With more patches than published fits have all pairs of, and the published token."""
    model = small_folder("ViT-B-16", "CLIP")
    values = {key: fill(value, model, []) for key, value in SMALL[stem].items()}
    values |= {"preset": "published", "budget": 4096, "pairs": 1, "proofs": 0}
    known = run.parameters(nbformat.read(NOTEBOOKS[stem], as_version=4))
    monkeypatch.setenv("FIXLIP_OUTPUT", str(tmp_path))
    monkeypatch.chdir(NOTEBOOKS[stem].parent)
    variables = execute(stem, {key: value for key, value in values.items() if key in known})
    options = variables["protocol"].options(*variables["sides"])
    assert options["basis"] == ("cross" if stem == "07_pointing_game" else "top")
    assert not beside_progress(capsys.readouterr().err)


HIDDEN, REPLACED = {}, {"stand_in": 1}
FEW = {"05_faithfulness": {"pairs": 1, "count": 50, "masks": 700, "joint": 1100}}
FEW["06_insertion_deletion"] = {"pairs": 1, "masks": 700, "joint": 1100}
FEW["07_pointing_game"] = {"mosaics": 1, "objects": [3], "masks": 700, "joint": 1100, "p": [0.5]}
FEW["07_pointing_game"] |= {"samples": 50}


@pytest.mark.notebook
@pytest.mark.parametrize("stem", FEW)
@pytest.mark.parametrize("preset", ["ours", "published"])
def test_each_preset_is_what_the_library_gives(stem, preset, monkeypatch):
    """The table of one pair or mosaic, made by the notebook and by calls of the library."""
    tables = {}

    def look(name, compute, *, settings, command, recompute):
        tables[name] = compute()
        raise LookedAtError

    monkeypatch.setattr("fixlip.data.measured.measured", look)
    monkeypatch.chdir(NOTEBOOKS[stem].parent)
    values = FEW[stem] | {"preset": preset}
    if "stand_in" in run.parameters(nbformat.read(NOTEBOOKS[stem], as_version=4)):
        values |= REPLACED
    with pytest.raises(LookedAtError):
        execute(stem, values)
    (table,) = tables.values()
    encoder = fixlip.load("demo-clip")
    how = {"ours": {"steps": 50}, "published": PUBLISHED}[preset]
    by_gradients = {"ours": HIDDEN, "published": REPLACED}[preset]
    if stem == "07_pointing_game":
        check_mosaic(table, encoder, how, zeros={"ours": "skip", "published": "wrong"}[preset])
    else:
        words = run.parameters(nbformat.read(NOTEBOOKS[stem], as_version=4))["words"]
        ((pair,), _) = best_pairs(encoder, read("demo"), pairs=1, ranks=(0, 50), words=words)
        check_pair(table, encoder, pair, how, by_gradients)


def check_pair(table, encoder, pair, how, by_gradients):
    """The table of notebook 05 or 06 for one pair, against calls of the library."""
    image, hidden = encoder.image(pair.image), encoder.text(pair.caption)
    budget = {"masks": 700, "joint": 1100}
    methods = [name for name in METHODS if name != "InteractionCAM"]  # which is left out there
    found = explain_all(image, hidden, methods=methods, p=(0.5,), **budget, **how)
    for name, explanation in found.items():
        own = name in ("GAME", "Grad-ECLIP", "exCLIP", "exCLIP, layer 0")
        text = encoder.text(pair.caption, **(by_gradients if own else HIDDEN))
        game, one = fixlip.Game(image, text), {name: explanation}
        rows = table[table.method == name]
        if "mif" in table:
            ((_, row),) = rows[rows.way == "published"].iterrows()
            curves = insertion_deletion(game, one)[name]
            made = [row.mif, row.lif], [curves.mif, curves.lif]
        else:
            expected = faithfulness(one, game, count=50, seed=1 + pair.rank)
            made = [frame[["r2", "spearman", "mse"]] for frame in (rows, expected)]
        np.testing.assert_allclose(*made, rtol=1e-4, atol=1e-4, err_msg=name)


def check_mosaic(table, encoder, how, zeros):
    """The table of notebook 07 for one mosaic and three names, against calls of the library."""
    mosaic = demo_mosaics()[0]
    sides = encoder.image(mosaic.image), encoder.text(mosaic.caption(3))
    budget = {"masks": (700, 1024), "joint": 1100, "samples": 50}
    found = explain_all(*sides, p=(0.5,), source="order 2", **budget, **how)
    where = quadrants(*sides[0].grid)
    for name, explanation in found.items():
        expected = pointing(explanation, where, mosaic.own(3), zeros=zeros)
        ((_, row),) = table[table.method == name].iterrows()
        assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-4), name


def test_every_table_in_data_belongs_to_a_notebook():
    named = {name for tables in TABLES.values() for name in tables} | {"estimators"}
    assert {path.stem for path in (root() / "data").glob("*.json")} == named


def test_every_notebook_has_its_small_parameters():
    assert set(SMALL) == set(NOTEBOOKS)
    for stem, values in SMALL.items():
        run.check(nbformat.read(NOTEBOOKS[stem], as_version=4), list(values))


def test_every_encoder_and_every_notebook_is_rehearsed():
    runs, everything = [*combinations(everything=False)], [*combinations(everything=True)]
    encoders = {name for names in ENCODERS.values() for name in names}
    with_model = {stem for stem, values in SMALL.items() if "model" in values}
    assert {name for stem, _, name in runs if stem == "00_quickstart"} == encoders
    others = [run for run in runs if run[0] != "00_quickstart"]
    assert sorted(stem for stem, *_ in others) == sorted(set(NOTEBOOKS) - {"00_quickstart"})
    assert {family for _, family, _ in others} - {None} == set(ENCODERS)
    assert {(stem, name) for stem, _, name in everything if name} == {
        (stem, name) for stem in with_model for name in encoders
    }
    assert set(runs) <= set(everything)


def test_parameters_for_encoders_are_filled_in():
    for stem, values in SMALL.items():
        notebook = nbformat.read(NOTEBOOKS[stem], as_version=4)
        asked = {"model", "models"} & set(run.parameters(notebook))
        assert asked <= set(values), f"{stem} has a parameter for encoders: fill it in"
