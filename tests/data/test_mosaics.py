"""Tests of fixlip.data.mosaics and fixlip.data.imagenet."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data import ImageNetInfo

import fixlip
from fixlip.data.imagenet import CLASSES, class_images
from fixlip.data.mosaics import (
    NEAREST,
    PUBLISHED_GAMES,
    Mosaic,
    demo_mosaics,
    imagenet_mosaics,
    single_token,
    world_mosaics,
)
from fixlip.demo import CONCEPTS
from fixlip.demo.scenes import read_scenes
from fixlip.metrics import quadrants

SCENES = Path(__file__).parents[2] / "data" / "scenes"
COLOURS = {name: tuple(np.random.default_rng(k).integers(0, 256, 3)) for k, name in
           enumerate(CLASSES)}  # fmt: skip


def test_the_classes_are_those_of_imagenet():
    """Against timm's list of the thousand classes."""
    imagenet = ImageNetInfo()
    words = {"plane": "airliner", "ipod": "iPod"}
    for name, (index, wnid) in CLASSES.items():
        assert imagenet.index_to_label_name(index) == wnid
        assert words.get(name, name) in imagenet.index_to_description(index)


def test_the_published_games():
    assert len(PUBLISHED_GAMES) == 10 and all(len(set(game)) == 4 for game in PUBLISHED_GAMES)
    assert set(Counter(name for game in PUBLISHED_GAMES for name in game)) == set(CLASSES)

    def left(dropped):  # texts without a class that is no single token, for one to four objects
        return [50 * sum(not dropped & {*g[:k]} for g in PUBLISHED_GAMES) for k in (1, 2, 3, 4)]

    assert left(set()) == [500] * 4
    assert left({"ipod", "goldfish"}) == [400, 300, 250, 150]  # SigLIP-2
    assert left({"ipod", "goldfish", "husky"}) == [350, 200, 150, 50]  # SigLIP


@pytest.fixture(params=["val/wnid", "wnid", "name"])
def imagenet(tmp_path, request):
    """Two pictures of each class, not square, some grey; each class in a colour of its own."""
    for name, (_, wnid) in CLASSES.items():
        folder = {"val/wnid": f"val/{wnid}", "wnid": wnid, "name": name}[request.param]
        (tmp_path / folder).mkdir(parents=True)
        for i in (1, 0):  # written in another order than they sort
            picture = Image.new("RGB", (60 + 40 * i, 50), tuple(map(int, COLOURS[name])))
            picture.putpixel((0, 0), (255 * i, 0, 0))
            picture.save(tmp_path / folder / f"ILSVRC2012_val_{i:08d}.JPEG", quality=95)
        for stray in ("notes.txt", ".DS_Store", "._ILSVRC2012_val_00000000.JPEG", "Thumbs.db"):
            (tmp_path / folder / stray).touch()
        (tmp_path / folder / "more.jpg").mkdir()
    return tmp_path


def test_mosaics_as_published(imagenet):
    mosaics = imagenet_mosaics(imagenet, count=2)
    assert len(mosaics) == len({mosaic.id for mosaic in mosaics}) == 20
    assert mosaics[2].names == PUBLISHED_GAMES[1] and mosaics[0].id.endswith("-00")
    for mosaic in mosaics[:4]:
        assert mosaic.image.size == (448, 448)
        pixels = np.asarray(mosaic.image).astype(int)
        cells = pixels.reshape(2, 224, 2, 224, 3).mean((1, 3)).reshape(4, 3)  # top left first
        for cell, name in zip(cells, mosaic.names, strict=True):
            assert np.abs(cell - COLOURS[name]).max() < 6


def literal(paths):
    """The mosaic by the definition: four pictures of 224 x 224, side by side."""
    tiles = [np.asarray(Image.open(p).resize((224, 224), Image.Resampling.BILINEAR)) for p in paths]
    return np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)], 0)


def test_compressed_or_not(imagenet):
    game = PUBLISHED_GAMES[:1]
    paths = [paths[1] for paths in class_images(imagenet, game[0]).values()]
    plain = imagenet_mosaics(imagenet, games=game, count=2, jpeg=0)[1]
    assert (np.asarray(plain.image) == literal(paths)).all()
    saved, picture = {}, Image.fromarray(literal(paths))
    for times in (1, 2):
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=75)
        picture = Image.open(packed)
        saved[times] = np.asarray(picture)
    published = imagenet_mosaics(imagenet, games=game, count=2)[1]
    assert (np.asarray(published.image) == saved[2]).all()
    once = imagenet_mosaics(imagenet, games=game, count=2, jpeg=1)[1]
    assert (np.asarray(once.image) == saved[1]).all() and (saved[1] != literal(paths)).any()
    with pytest.raises(ValueError, match="jpeg must be a whole number of 0 or more"):
        imagenet_mosaics(imagenet, games=game, count=2, jpeg=True)


def test_kept_mosaics_are_not_made_again(imagenet, tmp_path):
    keep = tmp_path / "kept"
    first = imagenet_mosaics(imagenet, count=1, keep=keep)
    here = imagenet_mosaics(imagenet, count=1)
    assert (np.asarray(Image.open(first[3].image)) == np.asarray(here[3].image)).all()
    assert sorted(keep.iterdir()) == sorted(mosaic.image for mosaic in first)
    before = first[0].image.stat().st_mtime_ns
    assert imagenet_mosaics(imagenet, count=1, keep=keep)[0].image == first[0].image
    assert first[0].image.stat().st_mtime_ns == before


def test_other_classes_in_other_folders(imagenet, tmp_path):
    (tmp_path / "my fruit").mkdir()
    Image.new("L", (5, 5)).save(tmp_path / "my fruit" / "a.png")
    names = ("mango", "pizza", "cat", "ball")
    folders = {"mango": "my fruit"}
    (mosaic,) = imagenet_mosaics(imagenet, games=[names], count=1, folders=folders)
    assert mosaic.names == names and mosaic.image.mode == "RGB"
    folders = {"mango": tmp_path / "my fruit"}
    found = class_images(imagenet, names, folders=folders)
    assert found["mango"] == [tmp_path / "my fruit" / "a.png"]
    assert [path.name[-6:] for path in found["cat"]] == ["0.JPEG", "1.JPEG"]


def test_what_is_missing_is_told_at_once(imagenet, tmp_path):
    with pytest.raises(FileNotFoundError) as told:
        class_images(tmp_path / "empty", ["goldfish", "mango", "goldfish"])
    message = str(told.value)
    assert "no pictures of goldfish (n01443537), mango; give the folder" in message
    assert "image-net.org" in message and message.count("goldfish (") == 1
    with pytest.raises(ValueError, match="3 pictures per class are needed, but goldfish has 2"):
        imagenet_mosaics(imagenet, count=3)
    with pytest.raises(ValueError, match="a game has four classes"):
        imagenet_mosaics(imagenet, games=[("cat", "ball")])


def test_demo_mosaics_show_what_they_name():
    """Quadrant by quadrant, against the scenes and their pixels."""
    scenes, mosaics = read_scenes(SCENES), demo_mosaics()
    where = quadrants(6, 6).reshape(6, 6)
    for mosaic in mosaics:
        scene = scenes[int(mosaic.id) - 1]
        assert (np.asarray(Image.open(mosaic.image)) == scene.image()).all()
        for thing in scene.things:
            (quadrant,) = set(where[thing.patches])
            assert mosaic.names[quadrant] == thing.shape and mosaic.phrases[quadrant] == thing.name
    chosen = [
        s
        for s in scenes
        if len(s.things) == 4
        and len({t.shape for t in s.things}) == 4
        and all(t.size == 3 and t.row in (0, 3) and t.column in (0, 3) for t in s.things)
    ]
    assert len(mosaics) == len(chosen) == 100


def test_captions_and_owners():
    names, phrases = ("star", "arrow", "ring", "moon"), ("red star", "cyan arrow", "x", "y")
    mosaic = Mosaic("1", Path("1.png"), names, phrases)
    assert mosaic.caption(4) == "star arrow ring moon" and mosaic.own(4) == [0, 1, 2, 3]
    assert mosaic.caption(1, full=True) == "a red star" and mosaic.own(1, full=True) == [-1, 0, 0]
    assert mosaic.caption(2, full=True) == "a red star and a cyan arrow"
    assert mosaic.own(2, full=True) == [-1, 0, 0, -1, -1, 1, 1]
    plain = Mosaic("1", Path("1.png"), ("soccer ball", "ipod", "cat", "dog"))
    assert plain.caption(2, full=True) == "a soccer ball and an ipod"
    assert plain.own(2) == [0, 0, 1]
    for count in (0, 5):
        with pytest.raises(ValueError, match="1 to 4 things"):
            mosaic.caption(count)


def test_owners_fit_the_words_of_a_model():
    encoder = fixlip.load("demo-clip", device="cpu")
    for mosaic in demo_mosaics()[:3]:
        for count in (1, 2, 3, 4):
            for full in (False, True):
                side = encoder.text(mosaic.caption(count, full=full), players="words")
                assert side.n == len(mosaic.own(count, full=full))
            assert single_token(encoder, mosaic.caption(count))


def test_single_tokens_are_measured(model_folder, tokenizer_folder):
    folder = model_folder("clip")
    encoder = fixlip.load(f"local-dir:{folder}", tokenizer=tokenizer_folder("clip", 12))
    assert single_token(encoder, "dog ball star")
    assert not single_token(encoder, "dog starfish")  # star + fish


def test_a_folder_without_mosaics(tmp_path):
    from generate import write_coco

    write_coco(tmp_path, [s for s in read_scenes(SCENES) if len(s.things) == 1][:2])
    with pytest.raises(ValueError, match=r"no scene of .* fills the four quadrants"):
        demo_mosaics(tmp_path)


def test_mosaics_of_the_demo_world_are_the_published_games_with_the_nearest_things():
    mosaics = world_mosaics(count=2)
    assert len(mosaics) == 20 and len({mosaic.id for mosaic in mosaics}) == 20
    for mosaic, game in zip(mosaics[::2], PUBLISHED_GAMES, strict=True):
        assert all(name in CONCEPTS for name in mosaic.names)
        assert mosaic.names == tuple(NEAREST.get(name, name) for name in game)
    first, second = (np.asarray(mosaic.image) for mosaic in mosaics[:2])
    assert first.shape == (224, 224, 3) and not np.array_equal(first, second)
    again = world_mosaics(count=1)[0]
    assert np.array_equal(again.image, first)
    assert not np.array_equal(world_mosaics(count=1, seed=1)[0].image, first)
    assert mosaics[0].names[0] == "tropical fish" and mosaics[0].own(2) == [0, 0, 1]
