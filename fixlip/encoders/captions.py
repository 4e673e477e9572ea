"""Captions as a text tower reads them: token ids, the text of each, and the part cut off."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fixlip.checks import warn
from fixlip.encoders.players import readable


@dataclass(frozen=True)
class Caption:
    """A tokenised caption."""

    ids: tuple[int, ...]  # (L,), with start, end and padding tokens, which always stay
    start: int  # ids[start:stop] are the caption's own
    stop: int
    pieces: tuple[str, ...]  # the text of each of them, with a leading space where a word starts
    cut: str | None  # the part of the caption that did not fit


class CaptionReader:
    """Reads captions with a tokenizer of any kind, and finds which tokens are the caption's own.

    Parameters
    ----------
    tokenizer : callable
        From a list of one string to token ids of shape (1, length), padded: any tokenizer of
        open_clip, or a function. The text of the tokens is taken from its vocabulary, or from its
        ``decode``; without either, tokens are named by their ids.
    length, vocabulary : int
        The context length L of the text tower, and the number of token ids that it knows.
    """

    def __init__(self, tokenizer: Callable[..., Any], *, length: int, vocabulary: int) -> None:
        self.tokenizer = tokenizer
        self.length = length
        self.vocabulary = vocabulary
        # The inner tokenizer of open_clip's wrapper of Hugging Face's knows the token texts.
        self._inner = getattr(tokenizer, "tokenizer", tokenizer)
        self._texts = {i: text for text, i in _token_texts(self._inner).items()}
        self._mark = _word_mark(self._texts.values())
        self._bytes = _byte_letters() if set(_byte_letters()) <= set(self._texts.values()) else {}
        # The tokens of an empty caption (start, end and padding) are those that always stay.
        self._frame = self._ids("")
        self._start = self._first_change("a")
        if self._start is None:
            raise ValueError("the tokenizer gives 'a' and the empty caption the same token ids")
        if self._first_change("a a") != self._start:
            raise ValueError(
                "the tokenizer pads on the left, so that a word's position depends on how many "
                'follow it; set "padding_side": "right" in its tokenizer_config.json'
            )

    def read(self, caption: str) -> Caption:
        """Tokenise one caption; an error where it is no string, empty, or nothing is left of it."""
        if not isinstance(caption, str):
            raise TypeError(
                f"a caption must be one string; given {type(caption).__name__}: of several "
                "captions give one, and decode bytes"
            )
        if not caption.strip():
            raise ValueError("the caption is empty; give at least one word")
        ids = self._ids(caption)
        start, stop = self._start, self._stop(ids)
        if start == stop:
            raise ValueError(f"the tokenizer leaves nothing of the caption {caption!r}; use words")
        special = {*getattr(self._inner, "all_special_ids", ())}
        special -= {getattr(self._inner, "unk_token_id", None)}
        if {*special, *self._frame[:start], self._frame[start]} & set(ids[start:stop]):
            raise ValueError(
                f"the tokenizer reads a part of the caption {caption!r} as one of its own marks, "
                "such as the end of a text; leave it out"
            )
        self._warn_of_unknown(caption, ids[start:stop])
        cut = self._cut(caption, start, stop)
        return Caption(tuple(ids), start, stop, tuple(self._pieces(ids[start:stop])), cut)

    def _ids(self, text: str, **options: int) -> list[int]:
        ids = self.tokenizer([text], **options)
        if isinstance(ids, Mapping):
            raise TypeError(
                "the tokenizer gives a dictionary; pass open_clip's wrapper of it, the path of a "
                "folder with its files, or a function from a list of strings to token ids"
            )
        ids = torch.as_tensor(ids).flatten().tolist()
        length = options.get("context_length", self.length)
        if len(ids) != length:
            raise ValueError(
                f"the tokenizer gives {len(ids)} token ids, but the text tower reads {length}; "
                f"pass a tokenizer that pads and cuts to {length}"
            )
        if min(ids) < 0 or max(ids) >= self.vocabulary:
            raise ValueError(
                f"the tokenizer gives the token id {max(ids, key=abs)}, but the text tower knows "
                f"only 0 to {self.vocabulary - 1}; pass the tokenizer that the model was made with"
            )
        return ids

    def _first_change(self, text: str) -> int | None:
        """Return the first position at which a caption differs from the empty one."""
        pairs = zip(self._ids(text), self._frame, strict=True)
        return next((i for i, (own, frame) in enumerate(pairs) if own != frame), None)

    def _stop(self, ids: Sequence[int]) -> int:
        """Return the position of the end token, the first that only frame tokens follow."""
        end, frame = self._frame[self._start], set(self._frame)
        for i in range(self._start, len(ids)):
            if ids[i] == end and frame.issuperset(ids[i:]):
                return i
        return len(ids)

    def _cut(self, caption: str, start: int, stop: int) -> str | None:
        if stop < self.length - 2:  # room is left: at most an end and a class token follow
            return None
        try:
            # room for every byte as a token, and for the letters that normalisation may add
            longer = self._ids(
                caption,
                context_length=self.length + 4 * len(caption.encode("utf-8", "surrogatepass")),
            )
        except TypeError:
            warn(
                f"the caption fills all {self.length} positions of the text tower; with this "
                "tokenizer it cannot be known whether its end was cut off"
            )
            return None
        pieces = self._pieces(longer[start : self._stop(longer)])[stop - start :]
        if not pieces:
            return None
        cut = readable("".join(pieces))
        warn(
            f"the caption is longer than the {self.length} positions of the text tower, and the "
            f"model does not see its end: {cut if len(cut) <= 60 else cut[:60] + ' ...'!r}"
        )
        return cut

    def _warn_of_unknown(self, caption: str, ids: Sequence[int]) -> None:
        unknown = getattr(self._inner, "unk_token_id", None)
        if unknown in ids and unknown not in self._frame:
            words = [word for word in caption.split() if unknown in self._ids(word)]
            warn(
                f"the tokenizer does not know {', '.join(map(_quoted, words)) or 'a part'} of the "
                "caption; the model sees an unknown-word token instead"
            )

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each token; a leading space marks the start of a word."""
        if not self._texts:
            decode = getattr(self._inner, "decode", None)
            texts = [decode([i]) for i in ids] if decode else [f"#{i}" for i in ids]
            return _lead_with_spaces(texts)
        raw = [self._texts.get(i, f"#{i}") for i in ids]
        match self._mark:
            case "</w>":  # at the end of a word
                opens = [True, *(text.endswith("</w>") for text in raw[:-1])]
                raw = [self._decode(text.removesuffix("</w>")) for text in raw]
                return [" " * new + text for text, new in zip(raw, opens, strict=True)]
            case "▁":  # in place of a space
                return [_byte(text) or text.replace("▁", " ") for text in raw]
            case "Ġ":  # the letter of the space among the letters of bytes
                return [self._decode(text) for text in raw]
            case "##":  # at the start of what continues a word
                return [text[2:] if text.startswith("##") else " " + text for text in raw]
        return [" " + text for text in raw]

    def _decode(self, text: str) -> str:
        """Turn letters that stand for bytes into text; bytes of a broken character are escaped."""
        if not self._bytes or not self._bytes.keys() >= set(text):
            return text
        return bytes(self._bytes[letter] for letter in text).decode("utf-8", "surrogateescape")


def _quoted(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:40] + " ...")


def _token_texts(tokenizer: object) -> dict[str, int]:
    if hasattr(tokenizer, "get_vocab"):  # Hugging Face
        return tokenizer.get_vocab()
    encoder = getattr(tokenizer, "encoder", None)  # OpenAI's byte-pair tokenizer
    return encoder if isinstance(encoder, Mapping) else {}


def _word_mark(texts: Collection[str]) -> str | None:
    """Return how a vocabulary marks the limits of words, if it does."""
    for mark in ("▁", "</w>", "Ġ", "##"):
        if any(text.endswith(mark) if mark == "</w>" else text.startswith(mark) for text in texts):
            return mark
    return None


def _byte_letters() -> dict[str, int]:
    """Return the letters that stand for bytes in byte-level vocabularies (as in GPT-2).

    Printable bytes stand for themselves; the others take the letters from code point 256 on.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def _byte(text: str) -> str | None:
    """Return the escaped byte of a byte-fallback token such as "<0xF0>"."""
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)]).decode("utf-8", "surrogateescape")
    return None


def _lead_with_spaces(texts: Sequence[str]) -> list[str]:
    """Move spaces after a word to the front of the next; without any, every token is a word."""
    if any(text.startswith(" ") for text in texts):
        return list(texts)
    ends = [text.endswith(" ") for text in texts]
    if not any(ends):
        ends = [True] * len(texts)
    opens = [True, *ends[:-1]]
    return [" " * new + text.strip() for text, new in zip(texts, opens, strict=True)]
