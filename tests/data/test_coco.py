"""Tests of fixlip.data.coco on small files with the oddities of the real ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_lengths import rle

import fixlip
from fixlip.data.coco import read_coco
from fixlip.data.coco_words import NOT_BY_NAME, phrases, synonyms
from fixlip.demo.scenes import read_scenes
from fixlip.encoders.spans import patches_in

SCENES = Path(__file__).parents[2] / "data" / "scenes"
CLASSES = {1: "person", 18: "dog", 19: "horse", 55: "orange", 58: "hot dog", 67: "dining table"}


def write(folder, split="val2017", *, name="{:012d}.jpg", ids=(139, 285, 632, 724), captions=None):
    """A folder in COCO's format; picture 632 is grey and has no instances, 724 no captions."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / split).mkdir()
    crowd = np.zeros((30, 40), dtype=int)
    crowd[20:, :25] = 1
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[5:15, 10:30] = 255  # the dog
    for number in ids:
        mode = "L" if number == 632 else "RGB"
        Image.fromarray(pixels).convert(mode).save(folder / split / name.format(number), quality=95)
    images = [{"id": i, "file_name": name.format(i), "height": 30, "width": 40} for i in ids]
    common = {"info": {}, "licenses": [{"id": 1}], "images": images}
    if captions is None:
        captions = [
            (285, "Two people with  a DOG\nby the tables. "),
            (139, "A puppy eats a hot dog at a table"),
            (139, "The dog's dinner, an orange ball and two oranges"),
            (632, "A dog"),
            (285, "A man at a dining table"),
        ]
    captions = [
        {"id": 1000 + k, "image_id": i, "caption": text} for k, (i, text) in enumerate(captions)
    ]
    corners = [10, 5, 30, 5, 30, 15, 10, 15]
    instances = [
        (139, 18, [10, 5, 20, 10], 0, [corners]),
        (139, 67, [0.5, 20.25, 30.5, 9.75], 0, [[0, 20, 31, 20, 31, 30, 0, 30]]),
        (285, 1, [0, 0, 8.5, 20], 0, [[0, 0, 8, 0, 8, 20, 0, 20]]),
        (285, 1, [0, 20, 25, 10], 1, rle(crowd)),
        (285, 18, [10, 5, 20, 10], 0, [corners]),
        (724, 55, [1, 1, 2, 2], 0, [[1, 1, 3, 1, 3, 3, 1, 3]]),
    ]
    instances = [
        {"id": 900000 + k, "image_id": i, "category_id": c, "bbox": box, "iscrowd": crowded}
        | {"segmentation": outline, "area": 1.0}
        for k, (i, c, box, crowded, outline) in enumerate(instances)
    ]
    categories = [{"id": i, "name": n, "supercategory": "any"} for i, n in CLASSES.items()]
    for kind, content in (
        ("captions", {"annotations": captions}),
        ("instances", {"annotations": instances, "categories": categories}),
    ):
        path = folder / "annotations" / f"{kind}_{split}.json"
        path.write_text(json.dumps(common | content))
    return folder


def told(example):
    """Every mention: caption, words, names of the objects, and whether they are crowds."""
    return [
        (m.caption, example.words(m), *[example.objects[i].name for i in m.objects])
        for m in example.mentions
    ]


def test_an_official_folder(tmp_path):
    first, second, third, fourth = read_coco(write(tmp_path))
    assert [e.id for e in (first, second, third, fourth)] == ["139", "285", "632", "724"]
    assert first.image == tmp_path / "val2017" / "000000000139.jpg" and first.size == (40, 30)
    assert second.captions == ("Two people with a DOG by the tables.", "A man at a dining table")
    assert [o.name for o in first.objects] == ["dog", "dining table"]
    assert first.objects[1].box == (0.5, 20.25, 30.5, 9.75)
    assert first.objects[0].id == "900000" and not first.objects[0].crowd
    assert fourth.captions == () and [o.name for o in fourth.objects] == ["orange"]
    assert third.objects == third.mentions == ()  # a caption that names a class without instances
    assert [o.crowd for o in second.objects] == [False, True, False]


def test_words_for_classes(tmp_path):
    first, second, *_ = read_coco(write(tmp_path))
    # a hot dog is no dog, and there is none on the picture; an orange ball is no fruit
    assert told(first) == [(0, "puppy", "dog"), (0, "table", "dining table"), (1, "dog", "dog")]
    assert told(second) == [
        (0, "people", "person", "person"),
        (0, "DOG", "dog"),
        (1, "man", "person", "person"),
    ]
    assert [second.words(m) for m in second.clear()] == ["DOG"]


def test_masks_and_boxes_lie_on_the_pixels(tmp_path):
    encoder = fixlip.load("demo-clip", device="cpu")
    for example in read_coco(write(tmp_path))[:2]:
        dog = next(o for o in example.objects if o.name == "dog")
        pixels = np.asarray(example.open()).mean(2)  # (30, 40)
        assert pixels[dog.mask()].mean() > 230 and pixels[~dog.mask()].mean() < 10
        side = encoder.image(example.open())
        seen = side.picture.mean(2).reshape(6, 8, 6, 8).mean((1, 3)).ravel()  # (36,)
        inside = patches_in(side, dog.box)
        assert seen[inside == 1].mean() > 150 and seen[inside == 0].mean() < 40
    crowd = read_coco(tmp_path)[1].objects[1]
    assert crowd.mask()[20:, :25].all() and crowd.mask().sum() == 250


def test_the_demo_data_says_what_its_captions_name():
    """Against the scenes' own truth, for all 300 pictures."""
    examples, scenes = read_coco(SCENES), read_scenes(SCENES)
    assert len(examples) == len(scenes) == 300
    for example, scene in zip(examples, scenes, strict=True):
        assert [o.name for o in example.objects] == [t.shape for t in scene.things]
        for thing, found in zip(scene.things, example.objects, strict=True):
            assert (found.mask() == thing.mask).all()
            x, y, width, height = found.box
            left, top, right, bottom = thing.box
            assert left <= x and top <= y and x + width <= right and y + height <= bottom
        for k, caption in enumerate(example.captions):
            own = [m for m in example.mentions if m.caption == k]
            for mention in own:
                (index,) = mention.objects
                colour, _, shape = example.words(mention).rpartition(" ")
                assert shape == scene.things[index].shape
                assert colour in ("", scene.things[index].colour)
            shapes = [word for word in caption.split() if word in {t.shape for t in scene.things}]
            assert [example.words(m).split()[-1] for m in own] == shapes
    assert sum(len(e.mentions) for e in examples) == sum(len(e.clear()) for e in examples) > 1000


def test_a_caption_that_does_not_name_what_it_says(tmp_path):
    write(tmp_path)
    path = tmp_path / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][1]["objects"] = [900001]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="says it names a dining table, and does not"):
        read_coco(tmp_path)


def karpathy(folder):
    """dataset_coco.json, with the fields that Karpathy's file has."""
    entries = [
        ("val2014", "COCO_val2014_000000000042.jpg", 42, "test", ["A dog .", "Dogs"]),
        ("val2014", "COCO_val2014_000000000073.jpg", 73, "restval", ["A horse"]),
        ("train2014", "COCO_train2014_000000000009.jpg", 9, "train", ["Food"]),
        ("val2014", "COCO_val2014_000000000074.jpg", 74, "test", ["A man"]),
    ]
    images = [
        {"filepath": place, "filename": name, "cocoid": number, "split": split, "imgid": k}
        | {"sentids": [], "sentences": [{"raw": raw, "tokens": raw.split()} for raw in texts]}
        for k, (place, name, number, split, texts) in enumerate(entries)
    ]
    path = folder / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    return path


def test_karpathys_split(tmp_path):
    write(tmp_path, "val2014", name="COCO_val2014_{:012d}.jpg", ids=(42, 73, 74), captions=[])
    path = tmp_path / "annotations" / "instances_val2014.json"
    content = json.loads(path.read_text())
    content["annotations"] = [a | {"image_id": 42} for a in content["annotations"][:1]]
    path.write_text(json.dumps(content))
    (tmp_path / "annotations" / "captions_val2014.json").unlink()  # not needed
    for where in (karpathy(tmp_path), "dataset_coco.json"):  # here, or in the folder
        first, second = read_coco(tmp_path, karpathy=where)
        assert [first.id, second.id] == ["42", "74"]
        assert first.image == tmp_path / "val2014" / "COCO_val2014_000000000042.jpg"
        assert first.captions == ("A dog .", "Dogs") and first.size == (40, 30)
        assert told(first) == [(0, "dog", "dog"), (1, "Dogs", "dog")]
    assert [e.id for e in read_coco(tmp_path, karpathy=where, split="restval")] == ["73"]
    with pytest.raises(ValueError, match=r"no split 'dev'; it has test \(2\), restval \(1\)"):
        read_coco(tmp_path, karpathy=where, split="dev")
    with (
        pytest.warns(UserWarning, match=r"no .*instances_train2014\.json: .* captions only"),
        pytest.raises(
            FileNotFoundError, match=r"1 of 1 pictures are not on disk.*caption_datasets"
        ),
    ):
        read_coco(tmp_path, karpathy=where, split="train")


def test_what_is_missing_is_told_with_its_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"captions_\*\.json in .*cocodataset\.org"):
        read_coco(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"dataset_coco\.json; .*karpathy/deepimagesent"):
        read_coco(tmp_path, karpathy="dataset_coco.json")
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"captions_val2014\.json; a folder of COCO holds"):
        read_coco(tmp_path, split="val2014")
    (tmp_path / "val2017" / "000000000285.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 pictures .*000000000285\.jpg"):
        read_coco(tmp_path)
    with pytest.warns(UserWarning, match="going on without them"):
        assert [e.id for e in read_coco(tmp_path, missing="skip")] == ["139", "632", "724"]
    write(tmp_path, "train2017")
    with pytest.raises(ValueError, match=r"splits train2017, val2017: choose one with split="):
        read_coco(tmp_path)
    assert len(read_coco(tmp_path, split="train2017")) == 4


def test_files_of_something_else(tmp_path):
    write(tmp_path)
    instances = tmp_path / "annotations" / "instances_val2017.json"
    captions = tmp_path / "annotations" / "captions_val2017.json"
    whole = instances.read_text()
    instances.write_text(captions.read_text())
    with pytest.raises(
        ValueError, match="cannot be read as COCO's instances: 'categories' must be a list"
    ):
        read_coco(tmp_path)
    instances.write_text(whole)
    captions.write_text('{"images": [], "annotations": [{"image_id": 3, "caption": "a"}]}')
    with pytest.raises(ValueError, match="captions of 1 pictures that it does not list: 3"):
        read_coco(tmp_path)
    captions.write_text('{"images": [{"id": 3}], "annotations": []}')
    with pytest.raises(ValueError, match="cannot be read as COCO's captions: 'file_name' must be"):
        read_coco(tmp_path)
    instances.unlink()
    captions.write_text('{"images": [], "annotations": []}')
    with pytest.warns(UserWarning, match="captions only"):
        assert read_coco(tmp_path) == []


def changed(path, change):
    """Rewrite a JSON file with a change to its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "key, index, values, message",
    [
        ("annotations", 1, {"caption": None}, "'caption' must be .* got None, in .*'id': 1001"),
        ("annotations", 1, {"caption": " "}, "'caption' must be .* got ' '"),
        ("annotations", 1, {"caption": ["a"]}, "'caption' must be"),
        ("annotations", 1, {"image_id": ...}, "'image_id' is missing, in .*'id': 1001"),
        ("annotations", 1, {"image_id": None}, "'image_id' must be .* got None"),
        ("annotations", 1, {"objects": 900000}, "'objects' must be a list"),
        ("annotations", 1, {"objects": [77]}, "picture 139: .* names the annotation 77, not here"),
        ("annotations", 1, None, "'annotations' must be a list of JSON objects"),
        ("annotations", None, {}, "'annotations' must be a list of JSON objects"),
        ("images", 1, {"file_name": None}, "'file_name' must be .*'id': 285"),
        ("images", 3, {"id": 632}, "lists the picture 632 2 times"),
        ("images", 1, {"id": ...}, "'id' is missing"),
        ("images", 1, {"id": None}, "'id' must be a whole number or a text, got None"),
        ("annotations", 1, {"image_id": 1.5}, "'image_id' must be a whole number or a text"),
        ("images", 1, {"width": 0}, "no picture is 0 wide and 30 high, in .*'id': 285"),
        ("images", 1, {"width": "40"}, "no picture is '40' wide"),
        ("images", 1, {"width": float("nan")}, "no picture is nan wide"),
        ("images", 1, {"width": 10**9, "height": 10**9}, "no picture is 1000000000 wide"),
    ],
)
def test_a_broken_entry_of_the_captions_is_named(tmp_path, key, index, values, message):
    write(tmp_path)
    path = tmp_path / "annotations" / "captions_val2017.json"

    def change(content):
        if index is None or values is None:
            content[key] = {"0": content[key]} if index is None else [*content[key], None]
            return
        content[key][index] |= values
        content[key][index] = {k: v for k, v in content[key][index].items() if v is not ...}

    changed(path, change)
    with pytest.raises(ValueError, match=rf"captions_val2017\.json.*{message}"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    "key, index, values, message",
    [
        (
            "annotations",
            0,
            {"bbox": [10, 5, float("nan"), 10]},
            r"a box is .* got \[10, 5, nan, 10",
        ),
        ("annotations", 0, {"bbox": [10, 5, -20, 10]}, r"a box is .* got \[10, 5, -20, 10\]"),
        ("annotations", 0, {"bbox": [10, 5, 20]}, r"a box is .* got \[10, 5, 20\]"),
        ("annotations", 0, {"bbox": None}, "a box is .* got None"),
        ("annotations", 0, {"bbox": ...}, "'bbox' is missing"),
        ("annotations", 0, {"category_id": 99}, "its picture or its class is not listed"),
        ("annotations", 0, {"image_id": 7}, "its picture or its class is not listed"),
        ("annotations", 0, {"iscrowd": "no"}, "invalid literal"),
        ("categories", 1, {"name": None}, "'name' must be a text .* got None, in .*'id': 18"),
        ("categories", 1, {"name": ""}, "'name' must be a text"),
        ("categories", 1, {"id": 1}, "the class 1 is called 'person', too"),
    ],
)
def test_a_broken_entry_of_the_instances_is_named(tmp_path, key, index, values, message):
    write(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"

    def change(content):
        entry = content[key][index] | values
        content[key][index] = {k: v for k, v in entry.items() if v is not ...}

    changed(path, change)
    about = "" if key == "categories" else ".*'id': 900000"
    with pytest.raises(ValueError, match=rf"instances_val2017\.json cannot .*{message}{about}"):
        read_coco(tmp_path)


def test_an_outline_that_cannot_be_drawn_is_named_when_it_is_needed(tmp_path):
    """Not before: one of them must not keep a reader from the other pictures."""
    write(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    bad = [[10, 5, float("inf"), 5, 30, 15]]
    changed(path, lambda content: content["annotations"][0].update(segmentation=bad))
    dog, table = read_coco(tmp_path)[0].objects
    with pytest.raises(ValueError, match=r"instances_val2017\.json dog 900000: .* does not fit"):
        dog.mask()
    assert table.mask().any()


def test_what_is_odd_but_clear_is_read(tmp_path):
    """Ids as texts here and numbers there, flags as texts, an empty box, no sizes, a byte mark."""
    plain = read_coco(write(tmp_path))
    captions = tmp_path / "annotations" / "captions_val2017.json"
    instances = tmp_path / "annotations" / "instances_val2017.json"

    def as_texts(content):
        for entry in content["annotations"]:
            entry["image_id"] = str(entry["image_id"])

    changed(captions, as_texts)
    captions.write_bytes(b"\xef\xbb\xbf" + captions.read_bytes())

    def odd(content):
        for entry in content["annotations"]:
            entry["category_id"] = str(entry["category_id"])
            entry["iscrowd"] = str(entry["iscrowd"])
        content["annotations"][1]["bbox"] = [0.5, 20.25, 30.5, 0.0]  # as COCO has, twice
        content["images"][1] |= {"width": 40.0, "height": 30.0}
        content["images"][2] |= {"width": None}

    changed(instances, odd)
    found = read_coco(tmp_path)
    assert [e.captions for e in found] == [e.captions for e in plain]
    assert [e.mentions for e in found] == [e.mentions for e in plain]
    assert [[o.crowd for o in e.objects] for e in found] == [
        [o.crowd for o in e.objects] for e in plain
    ]
    assert found[1].size == (40, 30) and found[0].objects[1].box[3] == 0
    assert (found[0].objects[1].mask() == plain[0].objects[1].mask()).all()


def test_a_broken_entry_of_karpathys_split_is_named(tmp_path):
    write(tmp_path, "val2014", name="COCO_val2014_{:012d}.jpg", ids=(42, 73, 74), captions=[])
    instances = tmp_path / "annotations" / "instances_val2014.json"
    changed(instances, lambda content: content.update(annotations=[]))
    for values, message in (
        ({"sentences": [{"raw": None}]}, "'raw' must be a text .* got None, in .*'cocoid': 42"),
        ({"sentences": None}, "'sentences' must be a list"),
        ({"filename": 3}, "'filename' must be a text"),
        ({"split": None}, "'split' must be a text"),
        ({"cocoid": 74}, "lists the picture 74 2 times"),
    ):
        path = karpathy(tmp_path)
        changed(path, lambda content, values=values: content["images"][0].update(values))
        with pytest.raises(ValueError, match=rf"dataset_coco\.json.*{message}"):
            read_coco(tmp_path, karpathy=path)


def test_the_list_of_words_is_consistent():
    """Every phrase belongs to one class, and every class of the list is one of COCO's."""
    coco = (
        "person bicycle car motorcycle airplane bus train truck boat;traffic light;fire hydrant;"
        "stop sign;parking meter;bench bird cat dog horse sheep cow elephant bear zebra giraffe "
        "backpack umbrella handbag tie suitcase frisbee skis snowboard;sports ball;kite;"
        "baseball bat;baseball glove;skateboard surfboard;tennis racket;bottle;wine glass;cup fork "
        "knife spoon bowl banana apple sandwich orange broccoli carrot;hot dog;pizza donut cake "
        "chair couch;potted plant;bed;dining table;toilet tv laptop mouse remote keyboard;"
        "cell phone;microwave oven toaster sink refrigerator book clock vase scissors;teddy bear;"
        "hair drier;toothbrush"
    )
    doubles = {"stop sign", "dining table"}
    classes = []
    for part in coco.split(";"):
        several = part in doubles or part in (
            *("traffic light", "fire hydrant", "parking meter", "sports ball", "baseball bat"),
            *("baseball glove", "tennis racket", "wine glass", "hot dog", "potted plant"),
            *("cell phone", "teddy bear", "hair drier"),
        )
        classes += [part] if several else part.split()
    assert len(classes) == len(set(classes)) == 80
    assert set(synonyms()) | set(NOT_BY_NAME) <= set(classes)
    words = [word for name in classes for word in (name, *synonyms().get(name, ()))]
    assert len(words) == len(set(words))
    names = phrases(classes)
    assert names["knives"] == "knife" and names["buses"] == "bus" and names["baby bears"] == "bear"
    assert names["teddy bears"] == "teddy bear" and names["toilet paper"] == ""
    assert "orange" not in names and names["oranges"] == "orange"
