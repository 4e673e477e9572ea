"""The command: its tables, files and exit statuses, and what it says of wrong use."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fixlip
from fixlip.cli import main
from fixlip.cli.pairs import summary

SCENE = "data/scenes/val/000000000209.png"
CAPTION = "a blue heart left of a red arrow"
FEW = ["--masks", "64"]  # quick; a warning of few masks would stand among the lines that are read

pytestmark = pytest.mark.filterwarnings("ignore:.*(are few for|undetermined):UserWarning")


@pytest.fixture(scope="module")
def scene(request):
    """The path of a picture."""
    return str(request.config.rootpath / SCENE)


def run(capsys, *arguments):
    """Exit status, standard output and standard error of the command."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    return status, said.out, said.err


def test_one_pair_gives_a_table_a_picture_and_the_explanation(capsys, tmp_path, scene):
    status, out, err = run(capsys, "explain", scene, CAPTION, *FEW, "-o", tmp_path / "new" / "out")
    assert status == 0
    kept = fixlip.Explanation.load(tmp_path / "new" / "out" / "explanation.safetensors")
    assert f"score {kept.grand_value:.2f}" in out
    i, j, value = kept.strongest(1, cross=True)[0]
    first = out.splitlines()[6].split()
    assert first[:3] == [kept.players[i], kept.players[j], f"{value:+.3f}"]
    low, high = value + np.array([-1.96, 1.96]) * kept.stderr.e2[i, j]
    assert first[3:] == [f"{low:+.3f}", f"{high:+.3f}"]
    assert len(out.splitlines()) == 6 + 10 + 1 and "counted from 0" in out.splitlines()[-1]
    terms = pd.read_csv(tmp_path / "new" / "out" / "terms.csv", keep_default_na=False)
    assert len(terms) == len(kept.to_frame()) and terms.estimate[0] == pytest.approx(kept.e0)
    with Image.open(tmp_path / "new" / "out" / "explanation.png") as picture:
        assert min(picture.size) > 500
    assert err.count(str(tmp_path)) == 3


def test_formats_are_read_back_and_nothing_else_is_on_standard_output(capsys, scene):
    status, out, _ = run(capsys, "explain", scene, CAPTION, *FEW, "--json")
    found = json.loads(out)
    assert status == 0 and found["caption"] == CAPTION and found["model"]["name"] == "demo-clip"
    assert len(found["terms"]) == 1 + 44 + 44 * 43 // 2
    assert found["terms"][0]["i"] is None and found["terms"][1]["i"] == 0
    _, out, _ = run(capsys, "explain", scene, CAPTION, *FEW, "--csv", "--seed", "0")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(row["estimate"]) for row in rows] == [t["estimate"] for t in found["terms"]]


def test_options_reach_the_explanation(capsys, scene):
    options = ["--p", "0.7", "--image-players", "2x2", "--text-players", "words", "--seed", "3"]
    _, out, _ = run(capsys, "explain", scene, CAPTION, *options, "--masks", "256", "--json")
    same = fixlip.explain(
        fixlip.load("demo-clip"),
        scene,
        CAPTION,
        p=0.7,
        image_players="2x2",
        text_players="words",
        masks=(256, 128),
        seed=3,
    )
    assert [t["estimate"] for t in json.loads(out)["terms"]] == pytest.approx(
        same.to_frame().estimate.tolist()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["explain"], "required: image"),
        (["explain", "photo.jpg"], "a picture needs a caption"),
        (["explain", "pairs.csv", "a dog", "-o", "x"], "goes without a caption"),
        (["explain", "pairs.csv"], "need a folder"),
        (["explain", "a.jpg", "a dog", "--json", "--csv"], "not allowed with"),
        (["explain", "a.jpg", "a dog", "--masks", "many"], "invalid int value"),
        (["paint"], "invalid choice"),
        (["models", "--fast"], "unrecognized arguments"),
    ],
)
def test_wrong_use_ends_with_two(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "") and message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png", "a dog"], "fixlip: there is no image file at 'nothing.png'"),
        (
            ["PICTURE", "a red arrow", "--model", "no-model"],
            "fixlip: no model is called 'no-model'",
        ),
        (["PICTURE", "a red arrow", "--p", "1"], "fixlip: p is the probability"),
        (["PICTURE", "a red arrow", "--masks", "0"], "fixlip: the number of masks must be"),
        (["PICTURE", "a red arrow", "--top", "-1"], "fixlip: --top must be a whole number"),
        (["PICTURE", "a red arrow", "--device", "abacus"], "fixlip: the device 'abacus'"),
        (["nothing.csv", "-o", "OUT"], "fixlip: there is no file 'nothing.csv'"),
        (["PICTURE", "a red arrow", *FEW, "-o", "PICTURE"], "fixlip: "),
    ],
)
def test_failures_end_with_one_and_a_sentence(capsys, tmp_path, scene, arguments, message):
    names = {"PICTURE": scene, "OUT": str(tmp_path / "out")}
    status, out, err = run(capsys, "explain", *(names.get(a, a) for a in arguments))
    assert (status, out) == (1, "") and len(err.splitlines()) == 1 and err.startswith(message)


@pytest.fixture
def table(tmp_path, scene):
    """A file of pairs, beside a picture."""
    (tmp_path / "pictures").mkdir()
    Image.open(scene).save(tmp_path / "pictures" / "scene.png")
    rows = [("heart", "a blue heart"), ("heart", "a blue heart heart"), ("arrow", "a red arrow")]
    lines = ["class,image,caption", *(f"{kind},pictures/scene.png,{text}" for kind, text in rows)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return tmp_path / "pairs.csv"


def test_many_pairs_are_kept_and_put_in_a_table_by_word_and_class(capsys, table, tmp_path):
    command = ["explain", table, "-o", tmp_path / "out", *FEW]
    status, out, err = run(capsys, *command)
    assert status == 0 and "3 computed now, 0 kept" in out, err
    words = pd.read_csv(tmp_path / "out" / "words.csv").set_index(["class", "word"])
    pairs = pd.read_csv(tmp_path / "out" / "by_pair.csv")
    a = pairs[pairs.word == "a"].interaction
    assert words.loc[("(all)", "a"), "pairs"] == 3
    assert words.loc[("(all)", "a"), "interaction"] == pytest.approx(a.mean())
    hearts = pairs[pairs.word == "heart"].groupby("caption").interaction.sum()
    assert len(hearts) == 2 and (pairs.word == "heart").sum() == 3  # one caption repeats it
    assert words.loc[("heart", "heart"), "interaction"] == pytest.approx(hearts.mean())
    assert words.interaction_low.isna().all()  # of three pairs it would be their range
    with table.open("a") as file:
        file.write("arrow,pictures/scene.png,arrow\n")
    status, out, _ = run(capsys, *command, "--csv")
    assert status == 0 and out == (tmp_path / "out" / "words.csv").read_text()
    assert len(list((tmp_path / "out" / "kept").rglob("*.json"))) >= 4
    _, out, _ = run(capsys, *command)
    assert "0 computed now, 4 kept" in out


def test_a_pair_that_fails_does_not_stop_the_others(capsys, table, tmp_path):
    with table.open("a") as file:
        file.write("arrow,pictures/gone.png,a red arrow\n")
    status, out, err = run(capsys, "explain", table, "-o", tmp_path / "out", *FEW)
    assert status == 1 and "3 done and 1 failed" in out
    (line,) = (line for line in err.splitlines() if line.startswith("fixlip:"))
    assert line.startswith("fixlip: pictures/gone.png, 'a red arrow': FileNotFoundError")
    assert len(pd.read_csv(tmp_path / "out" / "failures.csv")) == 1


@pytest.mark.parametrize("name", ["by_pair.csv", "words.csv", "failures.csv"])
def test_a_table_of_pairs_is_not_overwritten_by_its_results(capsys, tmp_path, name):
    """`-o .` beside a file called pairs.csv once replaced it."""
    text = "image,caption\na.png,a star\n"
    (tmp_path / name).write_text(text)
    status, _, err = run(capsys, "explain", tmp_path / name, "-o", tmp_path)
    assert (status, err) == (
        1,
        f"fixlip: {name} would be overwritten by the results; give another -o\n",
    )
    assert (tmp_path / name).read_text() == text


def test_a_folder_that_cannot_be_written_is_told_before_the_work(capsys, scene, monkeypatch):
    monkeypatch.setattr("fixlip.cli.one.explain_pair", lambda *_, **__: pytest.fail("worked"))
    assert run(capsys, "explain", scene, CAPTION, "-o", scene)[0] == 1


@pytest.mark.filterwarnings("default:.*say nothing of the errors")
def test_intervals_that_nothing_is_known_of_are_not_shown(capsys, scene):
    """One mask gave intervals from +0.000 to +0.000."""
    _, out, err = run(capsys, "explain", scene, "a blue heart", "--masks", "2", "--top", "3")
    rows = [line.split() for line in out.splitlines()[6:9]]
    assert [row[3:] for row in rows] == [["-", "-"]] * 3
    assert "say nothing of the errors" in err


def test_a_lack_of_memory_is_one_sentence(capsys, scene, monkeypatch):
    """A thousand million masks ended in a traceback of torch's allocator."""
    torch_says = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
    for error in (RuntimeError(torch_says), MemoryError()):
        monkeypatch.setattr("fixlip.cli.one.explain_pair", Mock(side_effect=error))
        status, _, err = run(capsys, "explain", scene, CAPTION)
        assert (status, len(err.splitlines())) == (1, 1) and "not enough memory" in err


def test_errors_name_the_commands_options(capsys, scene):
    _, _, err = run(capsys, "explain", scene, CAPTION, "--model", "ViT-B-32")
    assert "Give --pretrained one of the tags" in err and "pretrained=" not in err


@pytest.mark.parametrize("text", ["", "image\na.png\n", "image,caption\n", "\xff\xfe", '"a\nb'])
def test_other_files_than_tables_of_pairs_are_refused(capsys, tmp_path, text):
    (tmp_path / "pairs.csv").write_bytes(text.encode("latin-1"))
    status, _, err = run(capsys, "explain", tmp_path / "pairs.csv", "-o", tmp_path / "out")
    assert status == 1 and len(err.splitlines()) == 1 and "pairs.csv" in err


@pytest.mark.filterwarnings("default:.*repeat a pair")
def test_rows_that_repeat_a_pair_count_once(capsys, table, tmp_path):
    """Three times the same row gave three times its interaction."""
    command = ("explain", table, *FEW, "--csv")
    _, once, _ = run(capsys, *command, "-o", tmp_path / "once")
    with table.open("a") as file:
        file.write(2 * table.read_text().splitlines(keepends=True)[1])
    status, out, err = run(capsys, *command, "-o", tmp_path / "out")
    assert status == 0 and out == once and "2 rows repeat a pair, which counts once" in err


def test_captions_with_commas_need_quotes(capsys, table, tmp_path):
    """Columns were shifted, and half a caption explained."""
    lines = table.read_text().splitlines()
    for row in (f"{lines[1]}, again", lines[1].rpartition(",")[0]):
        table.write_text("\n".join([lines[0], row, ""]))
        status, _, err = run(capsys, "explain", table, "-o", tmp_path / "out", *FEW)
        assert status == 1 and "row 1 has" in err and "put a caption with commas into quotes" in err


def test_pairs_that_all_fail_are_listed(capsys, tmp_path):
    (tmp_path / "pairs.csv").write_text("Image, Caption\ngone.png,a dog\n")
    status, out, err = run(capsys, "explain", tmp_path / "pairs.csv", "-o", tmp_path / "out")
    assert status == 1 and "0 done and 1 failed" in out
    assert "fixlip: gone.png, 'a dog': FileNotFoundError" in err


def test_results_go_into_a_folder(capsys, table, tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/within"):
        status, _, err = run(capsys, "explain", table, "-o", tmp_path / place, *FEW)
        assert status == 1 and "cannot write into" in err and "another folder as -o" in err


def test_intervals_cover_the_mean_as_often_as_they_say():
    """24 pairs of a skewed quantity, 200 times: 95 % intervals of their means."""
    rng, covered = np.random.default_rng(0), 0
    names = {"class": "", "image": "x", "word": "dog"}
    for repetition in range(200):
        values = rng.gamma(4.0, size=24)
        table = pd.DataFrame({"caption": np.arange(24), "interaction": values, "attribution": 0.0})
        (row,) = summary(table.assign(**names), repetition).itertuples()
        covered += row.interaction_low <= 4.0 <= row.interaction_high
    assert 0.88 < covered / 200 < 0.98  # percentile intervals are a little narrow for 24


def test_models_are_those_that_were_measured(capsys, request):
    results = request.config.rootpath / "benchmarks" / "results" / "architectures.json"
    measured = json.loads(results.read_text())
    status, out, _ = run(capsys, "models", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0 and len(rows) == len(measured["architectures"]) + len(measured["demos"])
    for row in [*measured["demos"], *measured["architectures"]]:
        assert rows[row["architecture"]]["masks"] == row["result"]
        assert rows[row["architecture"]]["image players"] == row["patches"]
    status, out, _ = run(capsys, "models", "SigLIP2-256")
    assert status == 0 and all("SigLIP2-256" in line for line in out.splitlines()[1:-1])
    assert run(capsys, "models", "no such model")[0] == 1
    demo = fixlip.load("demo-siglip-fine")
    assert rows["demo-siglip-fine"]["image players"] == demo.image(np.zeros((9, 9))).n


def test_notebooks_are_copied_and_find_their_data(capsys, tmp_path):
    status, out, _ = run(capsys, "notebooks", tmp_path / "my compendium")
    assert status == 0 and out.splitlines()[-1].startswith('cd "')
    copied = tmp_path / "my compendium"
    assert len(list(copied.glob("notebooks/0*.ipynb"))) >= 9
    code = "from fixlip.paths import root; print((root() / 'data/scenes').is_dir(), root())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=copied / "notebooks", capture_output=True, text=True)
    assert done.stdout.split(maxsplit=1) == ["True", f"{copied}\n"], done.stderr
    status, _, err = run(capsys, "notebooks", copied)
    assert status == 1 and "not empty" in err


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "fixlip", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, fixlip_version())
    done = subprocess.run([sys.executable, "-m", "fixlip"], capture_output=True, text=True)
    assert done.returncode == 2


def fixlip_version() -> str:
    """The version that pyproject.toml states."""
    text = (Path(fixlip.__file__).parents[1] / "pyproject.toml").read_text()
    return text.split('\nversion = "')[1].partition('"')[0]


def test_a_reader_that_has_enough_is_no_failure():
    command = f'"{sys.executable}" -m fixlip models | head -1'
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_shows_examples(capsys):
    for command in ("explain", "models", "notebooks"):
        status, out, _ = run(capsys, command, "--help")
        assert status == 0 and f"\n  fixlip {command} " in out
