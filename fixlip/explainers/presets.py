"""The published protocol by name: how methods run, and which game judges which of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fixlip.checks import integer, one_of
from fixlip.explainers.methods import PUBLISHED
from fixlip.explanation import Explanation
from fixlip.games.game import Game
from fixlip.sampler import split_budget

if TYPE_CHECKING:
    from fixlip.encoders import Encoder
    from fixlip.encoders.sides import ImageSide, TextSide

PRESETS: dict[str, dict[str, Any]] = {"ours": {"steps": 50}, "published": PUBLISHED}
REMOVED = ("hidden", "replaced", "both")
STAND_IN = 289  # "B</w>" of OpenAI's tokenizer, which reads all text in lower case
JUDGED_REPLACED = ("GAME", "Grad-ECLIP", "exCLIP")
ALL_PAIRS = 64  # the most patches for which the published fits have all pairs
MOST_IMAGE, MOST_TEXT = 2**18, 64  # masks, in the published pointing game


@dataclass(frozen=True)
class Protocol:
    """How a study runs the methods of `explain_all`, and by which game it judges them.

    Raises ValueError for an unknown name, or a number that is too small.

    Parameters
    ----------
    preset : {"ours", "published"}
        "published": the samples, the fits and exCLIP's form and steps of the FIxLIP experiments,
        `fixlip.explainers.methods.PUBLISHED`. Their fits of order 2 have all pairs for up to 64
        patches, and for more the pairs of the 72 strongest players, or of the pointing game the
        image-text pairs.
    removed : {"", "hidden", "replaced", "both"}
        What a removed word is: hidden from attention, or replaced by the token `stand_in`. "both":
        GAME, Grad-ECLIP and exCLIP, which ask for no masks, are judged by the game of replaced
        words; the other methods explain that of hidden words and are judged by it. "" is the
        preset's: "hidden" of "ours", "both" of "published".
    stand_in : int
        A token id of the model. 289 is published, for OpenAI's CLIP.
    budget : int
        Values of the game for FIxLIP and Banzhaf values, shared out to the masks of both sides as
        published: by `fixlip.sampler.split_budget`, and in the pointing game with all masks of the
        caption. 0: the masks are given otherwise. (Published: 2**21, and 2**20 in the pointing
        game.)
    steps : int
        Of exCLIP's integral. 0: the preset's, 50 of "ours" and 20 of "published".
    pointing : bool
        Whether the study is the pointing game, which judges by no game.

    References
    ----------
    Baniecki et al., NeurIPS 2025, figures 3 and 4 and table 1, and its code.

    Examples
    --------
    >>> import fixlip, numpy as np
    >>> from fixlip.explainers.methods import explain_all
    >>> encoder, protocol = fixlip.load("demo-clip"), Protocol("published", stand_in=1)
    >>> sides = protocol.sides(encoder, np.zeros((48, 48, 3), np.uint8), "a red star")
    >>> protocol.options(*sides)["sampling"]
    'distinct-reference'
    >>> found = explain_all(*sides, methods=("GAME", "ITSM-O"), **protocol.options(*sides))
    >>> [(list(some), game.text_side.stand_in) for some, game in protocol.judges(found, *sides)]
    [(['GAME'], 1), (['ITSM-O'], None)]
    """

    preset: str = "ours"
    removed: str = ""
    stand_in: int = STAND_IN
    budget: int = 0
    steps: int = 0
    pointing: bool = False

    def __post_init__(self) -> None:
        one_of("preset", self.preset, PRESETS)
        usual = {"ours": "hidden", "published": "both"}[self.preset]
        values = {
            "removed": one_of("removed", self.removed or usual, REMOVED),
            "steps": integer("steps", self.steps, at_least=0) or PRESETS[self.preset]["steps"],
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        integer("budget", self.budget, at_least=0)

    @property
    def settings(self) -> dict[str, Any]:
        """The steps, and all that departs from "ours": what a kept table was made with."""
        found: dict[str, Any] = {"steps": self.steps}
        if self.preset != "ours":
            found["preset"] = self.preset
        if self.removed != "hidden" and not self.pointing:
            found |= {"removed": self.removed, "stand_in": self.stand_in}
        return found | ({"budget": self.budget} if self.budget else {})

    def sides(self, encoder: Encoder, image: object, caption: str) -> tuple[ImageSide, TextSide]:
        """The sides whose game the methods explain."""
        texts = {"hidden": encoder.text(caption)}
        if self.removed != "hidden":  # for "both" too: a token that does not fit fails before work
            texts["replaced"] = encoder.text(caption, stand_in=self.stand_in)
        return encoder.image(image), texts.get(self.removed, texts["hidden"])

    def options(self, image_side: ImageSide, text_side: TextSide) -> dict[str, Any]:
        """What `explain_all` is told about this pair."""
        found = {**PRESETS[self.preset], "steps": self.steps}
        if self.preset == "published" and image_side.n > ALL_PAIRS:
            found["basis"] = "cross" if self.pointing else "top"
        if self.budget and self.pointing:
            few = min(2**text_side.n, MOST_TEXT)
            found["masks"] = max(min(self.budget // few, MOST_IMAGE), 1), few
        elif self.budget:
            found["masks"] = split_budget(image_side.n, text_side.n, self.budget)
        return found

    def judges(
        self, found: Mapping[str, Explanation], image_side: ImageSide, text_side: TextSide
    ) -> list[tuple[dict[str, Explanation], Game]]:
        """The explanations, and the game that judges them: the one of these sides is the last.

        Variants go with their methods, by the part of the name before a comma.
        """
        replaced = []
        if self.removed == "both":
            replaced = [name for name in found if name.partition(",")[0] in JUDGED_REPLACED]
        parts = [({name: e for name, e in found.items() if name not in replaced}, text_side)]
        if replaced:
            info = text_side.info
            read = {"players": info["players"], "stand_in": self.stand_in}
            other = text_side.encoder.text(info["caption"], **read)
            parts.insert(0, ({name: found[name] for name in replaced}, other))
        return [(some, Game(image_side, text)) for some, text in parts if some]
