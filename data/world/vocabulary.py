"""The demo models' vocabulary of words and parts of words, and its Hugging Face tokenizer files.

Plurals and compounds fall into parts, as in the vocabularies of large models: "dog|s",
"butter|fly". The parts are chosen, not learnt: pieces learnt from captions that name 254 things
equally often were syllables such as "h|ed|g|e|ho|g".
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fixlip.demo.concepts import CONCEPTS
from fixlip.demo.phrases import COLOURS, COUNTS, INVERSE, SIZES

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start_of_text>", "<end_of_text>"
COMPOUNDS = (
    "butter|fly lady|bug sun|flower water|melon pine|apple straw|berry egg|plant ham|burger "
    "dough|nut pop|corn motor|cycle skate|board sail|boat speed|boat air|plane rain|bow snow|flake "
    "sun|glasses neck|tie hand|bag back|pack head|phones paint|brush tooth|brush bath|tub "
    "base|ball basket|ball volley|ball news|paper mail|box suit|case snow|man snow|men "
    "hour|glass tele|phone tele|vision tele|scope micro|phone micro|scope cater|pillar saxo|phone"
).split()


def words() -> list[str]:
    """Every word that captions use, each once."""
    fixed = "a an and some of photo on background".split()
    relations = " ".join(INVERSE).split()
    names = [word for concept in CONCEPTS.values() for word in concept.name.split()]
    plurals = [w for c in CONCEPTS.values() for w in (c.plural or "").split()]
    return list(dict.fromkeys([*fixed, *relations, *COUNTS, *SIZES, *COLOURS, *names, *plurals]))


def pieces() -> list[str]:
    """The vocabulary without special tokens: words, and parts that go on with ##."""
    split = {c.replace("|", ""): c.split("|") for c in COMPOUNDS}
    found: dict[str, None] = {}
    known = set(words())
    for word in words():
        stem = next((word[: -len(s)] for s in ("s", "es") if word[: -len(s)] in known), None)
        if word.endswith("s") and stem is not None and word not in split:
            found[f"##{word[len(stem) :]}"] = None
        elif word in split:
            first, second = split[word]
            found |= {first: None, f"##{second}": None}
        else:
            found[word] = None
    return list(found)


def vocabulary(kind: str) -> dict[str, int]:
    """Token ids.

    Parameters
    ----------
    kind : {"clip", "siglip"}
        ``clip``: start and end tokens, the end token has the highest id (argmax pooling finds it);
        ``siglip``: an end token only, with SigLIP-2's ids (pad 0, end 1).
    """
    if kind == "clip":
        tokens = (PAD, UNKNOWN, START, *pieces(), END)
    else:
        tokens = (PAD, END, UNKNOWN, *pieces())
    return {token: i for i, token in enumerate(tokens)}


def make_tokenizer(kind: str) -> Tokenizer:
    """The tokenizer: lower case, words and punctuation apart, the longest known part first."""
    ids = vocabulary(kind)
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    start = f"{START} " if kind == "clip" else ""
    special = [(token, ids[token]) for token in (START, END) if token in ids]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}$A {END}", special_tokens=special
    )
    return tokenizer


def write_tokenizer(folder: Path, kind: str, *, length: int) -> None:
    """Write the files from which `open_clip.get_tokenizer("local-dir:...")` works offline."""
    from transformers import PreTrainedTokenizerFast

    names = {"pad_token": PAD, "unk_token": UNKNOWN, "eos_token": END}
    if kind == "clip":
        names["bos_token"] = START
    PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(kind),
        model_max_length=length,
        padding_side="right",
        **names,
    ).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 knows too
    path.write_text(json.dumps(config, indent=2) + "\n")
