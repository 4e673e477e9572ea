"""Words that captions use for the 80 classes of COCO; the papers' own list is not published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from fixlip.data.examples import Mention, Object

ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")

# Besides the name of the class itself. Plurals are made by `plural`, irregular ones stand here.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "person": (
        *("man", "men", "woman", "women", "child", "children", "people", "persons", "boy", "girl"),
        *("kid", "toddler", "infant", "lady", "guy", "gentleman", "gentlemen", "player", "skier"),
        *("surfer", "snowboarder", "skateboarder", "skater", "rider", "cyclist", "bicyclist"),
        *("motorcyclist", "biker", "pedestrian", "batter", "catcher", "umpire", "chef"),
        *("worker", "officer", "policeman", "policemen", "baby"),
    ),
    "bicycle": ("bike",),
    "car": ("automobile", "suv", "sedan", "taxi"),
    "motorcycle": ("motorbike", "motor bike", "dirt bike", "moped", "scooter"),
    "airplane": ("plane", "aeroplane", "jet", "airliner", "aircraft"),
    "train": ("locomotive",),
    "truck": ("lorry", "pickup", "fire engine"),
    "boat": ("ship", "sailboat", "canoe", "kayak", "ferry", "yacht"),
    "traffic light": ("traffic signal", "stoplight", "stop light"),
    "fire hydrant": ("hydrant",),
    "bird": ("seagull", "gull", "pigeon", "duck", "goose", "geese", "parrot", "owl", "swan"),
    "cat": ("kitten", "kitty"),
    "dog": ("puppy", "pup"),
    "horse": ("pony",),
    "sheep": ("lamb", "ewe"),
    "cow": ("cattle", "bull", "calf", "calves"),
    "bear": ("polar bear", "grizzly"),
    "backpack": ("back pack", "knapsack"),
    "umbrella": ("parasol",),
    "handbag": ("purse", "hand bag"),
    "tie": ("necktie", "neck tie"),
    "suitcase": ("luggage", "baggage"),
    "frisbee": ("flying disc",),
    "skis": ("pair of skis",),
    "snowboard": ("snow board",),
    "sports ball": ("ball", "soccer ball", "tennis ball", "baseball ball", "basketball"),
    "baseball bat": ("bat",),
    "baseball glove": ("glove", "mitt", "catcher's mitt"),
    "skateboard": ("skate board",),
    "surfboard": ("surf board",),
    "tennis racket": ("racket", "racquet", "tennis racquet"),
    "wine glass": ("wineglass", "glass of wine", "glasses of wine", "glass of red wine"),
    "cup": ("mug",),
    "knife": ("knives",),
    "donut": ("doughnut",),
    "hot dog": ("hotdog",),
    "couch": ("sofa", "loveseat"),
    "potted plant": ("plant", "houseplant", "pot plant"),
    "dining table": ("table", "kitchen table"),
    "tv": ("television", "tv set", "flat screen tv"),
    "laptop": ("laptop computer", "notebook computer"),
    "mouse": ("computer mouse", "mice"),
    "remote": ("remote control", "wii remote", "wiimote"),
    "keyboard": ("computer keyboard",),
    "cell phone": ("cellphone", "phone", "mobile phone", "smartphone", "smart phone"),
    "microwave": ("microwave oven",),
    "oven": ("stove", "stovetop"),
    "refrigerator": ("fridge",),
    "teddy bear": ("stuffed bear", "teddy"),
    "hair drier": ("hair dryer", "blow dryer", "hairdryer", "blow drier"),
    "scissors": ("pair of scissors",),
    "orange": ("oranges", "orange slice", "slice of orange", "piece of orange"),
}

# In captions the bare word is a colour more often than a fruit.
NOT_BY_NAME = ("orange",)

# Phrases that contain the name of a class, but do not name one.
OTHER_THINGS = (
    *("train station", "train track", "train tracks", "train yard", "bus stop", "bus station"),
    *("toilet paper", "toilet brush", "bird house", "bird cage", "bird bath", "bird feeder"),
    *("dog house", "dog bed", "dog bowl", "cat bed", "cat food", "dog food", "horse race"),
    *("boat dock", "car park", "parking lot", "car seat", "bed sheet", "book shelf", "book case"),
    *("table cloth", "table tennis", "table top", "pizza box", "pizza oven", "cake stand"),
    *("clock tower", "chair lift", "apple computer", "phone booth", "kite board", "kite surfing"),
    *("dvd player", "cd player", "record player", "jet ski", "cow boy", "horse shoe", "tie dye"),
)


def plural(word: str) -> str:
    """A regular English plural.

    Examples
    --------
    >>> plural("toothbrush"), plural("puppy"), plural("toy"), plural("tv")
    ('toothbrushes', 'puppies', 'toys', 'tvs')
    """
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def phrases(classes: list[str]) -> dict[str, str]:
    """What captions call the classes, in lower case: phrase -> class, or "" for none of them.

    Classes that are not COCO's go by their names.

    Examples
    --------
    >>> phrases(["bear"])["baby bears"], phrases(["star"])["stars"], phrases(["dog"])["dog bed"]
    ('bear', 'star', '')
    """
    found = dict.fromkeys(OTHER_THINGS, "")
    for name in classes:
        words = [] if name in NOT_BY_NAME else [name.lower()]
        words += [*SYNONYMS.get(name, ()), *([f"baby {name}"] if name in ANIMALS else [])]
        found |= {form: name for word in words for form in (word, plural(word))}
    return found


def any_of(phrases: Iterable[str]) -> re.Pattern:
    """A pattern of any of these phrases, the longest first: a hot dog is no dog."""
    longest = "|".join(map(re.escape, sorted(phrases, key=len, reverse=True)))
    return re.compile(rf"\b({longest})\b", re.IGNORECASE)


def name_mentions(
    number: int,
    caption: str,
    names: Mapping[str, str],
    objects: Sequence[Object],
    pattern: re.Pattern,
) -> list[Mention]:
    """Mentions of the classes that occur among the objects, in the order of the caption.

    ``number`` says which caption of the example it is; ``names`` goes from phrases in lower case to
    classes, and ``pattern`` is `any_of` the phrases.

    Examples
    --------
    >>> dogs = [Object("dog", (0, 0, 1, 1)), Object("dog", (2, 0, 1, 1))]
    >>> names = {"dogs": "dog", "puppy": "dog", "hot dog": ""}
    >>> name_mentions(0, "Dogs eat a hot dog", names, dogs, any_of(names))
    [Mention(caption=0, start=0, stop=4, objects=(0, 1))]
    """
    mentions = []
    for match in pattern.finditer(caption):
        wanted = names[match[0].lower()]
        same = tuple(i for i, thing in enumerate(objects) if thing.name == wanted)
        if same:
            mentions.append(Mention(number, *match.span(), same))
    return mentions
