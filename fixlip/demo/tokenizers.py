"""The demo models' vocabulary (one token per plain word) and its Hugging Face tokenizer files."""

import json
import re
from pathlib import Path

from fixlip.demo.drawing import COLOURS, SHAPES

WORDS: tuple[str, ...] = (
    *("a", "an", "and", "left", "right", "of", "above", "below"),
    *COLOURS,
    *SHAPES,
)
PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start_of_text>", "<end_of_text>"


def vocabulary(kind: str) -> dict[str, int]:
    """Token ids.

    Parameters
    ----------
    kind : {"clip", "siglip"}
        ``clip``: start and end tokens, the end token has the highest id (argmax pooling finds it);
        ``siglip``: an end token only, with SigLIP 2's ids (pad 0, end 1).
    """
    if kind == "clip":
        tokens = (PAD, UNKNOWN, START, *WORDS, END)
    elif kind == "siglip":
        tokens = (PAD, END, UNKNOWN, *WORDS)
    else:
        raise ValueError(f'kind must be "clip" or "siglip", got {kind!r}')
    return {token: i for i, token in enumerate(tokens)}


def encode(caption: str, kind: str, *, length: int) -> list[int]:
    """Token ids of a caption, padded to `length`: the same as the saved tokenizer gives, faster."""
    ids = vocabulary(kind)
    row = [ids[START]] if kind == "clip" else []
    row += [ids.get(word, ids[UNKNOWN]) for word in re.findall(r"\w+", caption.lower())]
    row = [*row[: length - 1], ids[END]]
    return row + [ids[PAD]] * (length - len(row))


def write_tokenizer(folder: Path, kind: str, *, length: int) -> None:
    """Write the files from which `open_clip.get_tokenizer("local-dir:...")` works offline."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = vocabulary(kind)
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[^\w\s]+"), " ")]  # no punctuation
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    start = f"{START} " if kind == "clip" else ""
    special = [(token, ids[token]) for token in (START, END) if token in ids]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start}$A {END}", special_tokens=special
    )
    names = {"pad_token": PAD, "unk_token": UNKNOWN, "eos_token": END}
    if kind == "clip":
        names["bos_token"] = START
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=length, padding_side="right", **names
    ).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that transformers 4 knows too
    path.write_text(json.dumps(config, indent=2) + "\n")
