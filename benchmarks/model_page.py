"""The page of models, docs/models.md, with what differs from the papers'; and the list of them.

`tables.py` writes it, from what `architectures.py` and `gelu.py` measured.
"""

import json

from machine import table

PAGE = """# Which models

<!-- Written by `python benchmarks/tables.py` from the files of results: do not edit by hand. -->

`fixlip.load` takes the ViT-based CLIP and SigLIP models of open_clip. All {count} architectures
that open_clip {open_clip} lists were tried with timm {timm} and random weights, two narrow blocks
per tower and all else as it is (`python benchmarks/architectures.py`): {exact} are **exact**,
which means that masked embeddings equal those of the raw towers, on images whose removed patches
are zero and on captions without the removed tokens. The other {refused} are refused by name,
before anything is fetched.

Pretrained weights could not be fetched where this was measured: names, tags and tokenizers are
tested on stand-ins.

{families}

The players of an image are its patches, unless coarser blocks or regions are asked for. The
players of a caption are its tokens or words; of the text positions, those of the start and end
tokens are not players.

## What differs from the papers' models

The FIxLIP experiments ran FIxLIP on the transformers library, and GAME, Grad-ECLIP and exCLIP on
OpenAI's code; fixlip uses open_clip. With the same weights, transformers and open_clip give the
same scores up to rounding, with three exceptions.

**GELU in SigLIP.** transformers computes all of SigLIP's activations with the tanh approximation
of GELU. open_clip and timm compute some of them exactly: in the towers of the first SigLIP, and
in some image towers of SigLIP 2. On the same random weights, and relative to the range of the
game's values, this changes a value by:

{gelu}

(`python benchmarks/gelu.py`; one scene of the demo data.) With `gelu="tanh"` a model is loaded with
transformers' activations:

```python
import fixlip

encoder = fixlip.load("ViT-B-16-SigLIP", pretrained="webli", gelu="tanh")
```

**SigLIP 2's captions.** open_clip writes captions in lower case and drops their punctuation. The
experiments' version of transformers (4.51) did neither, so that "A dog." had other tokens there,
and with them other players. A tokenizer of one's own reproduces that:

```python
import open_clip

tokenizer = open_clip.tokenizer.HFTokenizer(
    "timm/ViT-B-16-SigLIP2", context_length=64, clean="whitespace"
)
encoder = fixlip.load("ViT-B-16-SigLIP2", pretrained="webli", tokenizer=tokenizer)
```

**Centre crop.** For some sizes of the picture (640 x 427 is one) transformers crops one pixel
away from where OpenAI's own code does. fixlip crops as OpenAI's code.

## Every architecture

{architectures}
"""


def listing(architectures: dict) -> str:
    """What `fixlip models` lists, as JSON: the demo models first."""
    rows = [
        {
            "name": row["architecture"],
            "image players": row["patches"],
            "text positions": row["positions"],
            "masks": row["result"],
        }
        for row in [*architectures["demos"], *architectures["architectures"]]
    ]
    return json.dumps(rows, indent=1) + "\n"


def page(architectures: dict, gelu: dict) -> str:
    """The page, from the content of two files of results."""
    every = architectures["architectures"]
    exact = sum(row["result"] == "exact" for row in every)
    rows = [
        {
            "architecture": row["architecture"],
            "family": row["family"],
            "patches": row["patches"] or "-",
            "text positions": row["positions"] or "-",
            "masks": row["result"],
        }
        for row in every
    ]
    return PAGE.format(
        count=len(every),
        exact=exact,
        refused=len(every) - exact,
        open_clip=architectures["machine"]["open_clip"],
        timm=architectures["machine"]["timm"],
        families=table(architectures["rows"]),
        gelu=table(gelu["rows"]),
        architectures=table(rows),
    )
