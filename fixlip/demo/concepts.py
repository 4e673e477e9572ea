"""The concepts of the demo world: names, plurals, groups, and the drawings that show each."""

import re
from dataclasses import dataclass

# A line per group: names; after "=" the drawings, by Unicode's names for emoji, where they are not
# the name alone; after "/" the plural where it is irregular, "~" for what is not counted.
TABLE = """\
animal:
    monkey=monkey face|monkey; dog=dog face|dog; wolf=/wolves; fox; cat=cat face|cat; lion;
    tiger=tiger face|tiger; horse=horse face|horse; unicorn; zebra; deer=/deer;
    cow=cow face|cow; pig=pig face|pig; sheep=ewe/sheep; goat; camel=two-hump camel|camel;
    giraffe; elephant; rhino=rhinoceros/rhinos; hippo=hippopotamus; mouse=mouse face|mouse/mice;
    rabbit=rabbit face|rabbit; squirrel=chipmunk; hedgehog; bat; bear; koala; panda; kangaroo;
    frog; crocodile; turtle; snake; dragon=dragon face|dragon
bird:
    turkey; chicken; rooster; chick=baby chick|front-facing baby chick; bird; penguin; eagle;
    duck; owl; peacock; parrot
sea animal:
    whale=spouting whale|whale; dolphin; tropical fish=/tropical fish; shark;
    octopus=/octopuses; shell=spiral shell; crab
insect:
    snail; butterfly; caterpillar=bug; ant; bee=honeybee; ladybug=lady beetle; spider; scorpion
plant:
    bouquet; rose; sunflower; tulip; pine tree=evergreen tree; palm tree; cactus=/cacti;
    maple leaf=/maple leaves; mushroom
fruit:
    grapes=/~; watermelon; orange=tangerine; lemon; banana; pineapple; apple=red apple; pear;
    peach; cherries=/~; strawberry; kiwi=kiwi fruit
vegetable:
    tomato; avocado; eggplant; potato; carrot; corn=ear of corn/~; chili=hot pepper; broccoli=/~
food:
    bread=/~; croissant; pancakes=/~; cheese=cheese wedge/~; bacon=/~; hamburger;
    fries=french fries/~; pizza; hot dog; sandwich; taco; egg; popcorn=/~; rice=cooked rice/~;
    spaghetti=/~; sushi=/~
sweet:
    ice cream; doughnut; cookie; cake=shortcake; chocolate=chocolate bar/~; candy=/~; lollipop
drink:
    milk=glass of milk/~; coffee=hot beverage/~; wine=wine glass/~; cocktail=cocktail glass;
    beer=beer mug/~
vehicle:
    train=locomotive; bus=/buses; ambulance; fire engine; taxi; car=automobile;
    truck=delivery truck; tractor; motorcycle; scooter=motor scooter; bicycle; skateboard;
    sailboat; speedboat; ship; airplane; helicopter; rocket; flying saucer
building:
    house; school; hospital; factory; castle; church=/churches; mosque; tent; fountain;
    ferris wheel; roller coaster; tower=Tokyo tower
sky:
    moon=crescent moon; sun; star; cloud; rainbow; tornado; snowflake; mountain; volcano
clothes:
    glasses=/~; sunglasses=/~; necktie; shirt=t-shirt; jeans=/~; gloves=/~; dress=/dresses;
    handbag; backpack; shoe=man’s shoe; sneaker=running shoe; boot=woman’s boot; crown; top hat;
    cap=billed cap; ring; kimono
music:
    guitar; violin; trumpet; saxophone; drum; piano=musical keyboard; microphone; bell; radio;
    headphones=headphone/~
machine:
    phone=mobile phone; telephone; laptop; computer=desktop computer; printer; television;
    camera; light bulb; battery; alarm clock; watch=/watches; satellite; robot
tool:
    hammer; wrench; gear; magnet; ladder; scissors=/~; key; lock=locked; sword=dagger; shield;
    bomb; knife=kitchen knife/knives; spoon; microscope; syringe; telescope;
    paintbrush=/paintbrushes; pencil; anchor; umbrella; toothbrush=/toothbrushes; candle
furniture:
    chair; bed; couch=couch and lamp/couches; toilet; bathtub; door; window;
    lantern=red paper lantern; vase=amphora
sport:
    soccer ball; baseball; basketball; volleyball; ice skate; boxing glove; trophy;
    medal=sports medal
thing:
    balloon; gift=wrapped gift; teddy bear; kite; book=closed book; newspaper; envelope;
    mailbox=closed mailbox with raised flag/mailboxes; diamond=gem stone; suitcase=luggage;
    christmas tree=Christmas tree; pumpkin=jack-o-lantern; snowman=/snowmen;
    hourglass=hourglass done/hourglasses; globe=globe showing Europe-Africa; feather;
    traffic light=vertical traffic light; ghost
"""


@dataclass(frozen=True)
class Concept:
    """A thing that scenes show and captions name.

    Attributes
    ----------
    name : str
    plural : str or None
        None for what is not counted: captions say "some milk".
    group : str
        Such as "animal".
    drawings : tuple of str
        What shows it, by Unicode's names: "dog face" and "dog".
    first : int
        The place of its first drawing in every sheet of pictures.
    """

    name: str
    plural: str | None
    group: str
    drawings: tuple[str, ...]
    first: int

    def phrase(self, size: str | None = None) -> str:
        """The name with its article, such as "an apple", "a large apple" or "some milk"."""
        words = self.name if size is None else f"{size} {self.name}"
        return f"some {words}" if self.plural is None else f"{article(words)} {words}"


def article(words: str) -> str:
    """The indefinite article before some words of the table."""
    return "an" if words[0] in "aeio" or words.startswith(("um", "hour")) else "a"


def plural_of(name: str) -> str:
    """The plural of a regular noun.

    Examples
    --------
    >>> plural_of("watch"), plural_of("butterfly"), plural_of("toy"), plural_of("tomato")
    ('watches', 'butterflies', 'toys', 'tomatoes')
    """
    if re.search("(s|x|ch|sh|mato|tato)$", name):
        return name + "es"
    return re.sub("(?<![aeiou])y$", "ie", name) + "s"


def _read(table: str) -> dict[str, Concept]:
    concepts: dict[str, Concept] = {}
    first = 0
    for group, items in re.findall(r"(\S[^:\n]*):\n((?: +.*\n)+)", table):
        for item in " ".join(items.split()).split("; "):
            name, _, more = item.partition("=")
            shown, _, plural = more.partition("/")
            drawings = tuple((shown or name).split("|"))
            plural = None if plural == "~" else plural or plural_of(name)
            concepts[name] = Concept(name, plural, group, drawings, first)
            first += len(drawings)
    return concepts


CONCEPTS: dict[str, Concept] = _read(TABLE)
