"""What the command takes, and how it ends: 0 done, 1 failed, 2 wrong use.

It reads its arguments with argparse, which comes with Python: the command can say which extra is
missing where nothing but the core is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata

from fixlip.checks import out_of_memory
from fixlip.cli import models, notebooks, one, pairs

EXPLAIN = """\
explain why a model finds an image and a caption similar

  fixlip explain photo.jpg "a dog on a sofa" --model ViT-B-32 --pretrained openai
      a table of the strongest interactions
  fixlip explain photo.jpg "a dog on a sofa" --model ViT-B-32 --pretrained openai -o out
      a picture, the explanation and a table of all terms go to out/
  fixlip explain photo.jpg "a dog on a sofa" --model ViT-B-32 --pretrained w.pt --csv > terms.csv
      by weights in a file; all terms, for another program
  fixlip explain scene.png "a red star and a blue ring"
      by the small demo model that comes with fixlip: it knows coloured shapes only
  fixlip explain pairs.csv -o out --model ViT-B-32 --pretrained openai
      many pairs: a file with the columns image and caption, and, if there are groups to be
      compared, class; the paths of images are relative to the file. Stop it and run it again: what
      is done is not done again. out/by_pair.csv has a row per pair and word, out/words.csv one per
      word and class, with 95 % bootstrap intervals over pairs (of 5 or more).
"""
MODELS = """\
list the architectures of open_clip: how many players they have, and whether they can be explained

  fixlip models             all that were tried
  fixlip models siglip      those with "siglip" in their name
"""
NOTEBOOKS = """\
copy the notebooks, and the data that they read, into a new folder

  fixlip notebooks compendium && cd compendium && jupyter lab notebooks

To run them: pip install 'fixlip[notebooks]'
"""
TOP = """\
Why do CLIP, SigLIP and SigLIP 2 find an image and a caption similar?

  fixlip explain photo.jpg "a dog on a sofa" --model ViT-B-32 --pretrained openai -o out
  fixlip models
  fixlip notebooks compendium

fixlip explain --help says more. It ends with 0 (done), 1 (failed or stopped) or 2 (wrong use)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those that the process was given.
    """
    options = parser().parse_args(arguments)  # wrong use ends here, with 2
    try:
        with _warnings_in_one_line():
            return options.run(options)
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("fixlip: stopped", file=sys.stderr)
    except (ValueError, OSError, ImportError) as error:
        text = re.sub(r"\b(pretrained|tokenizer)= ?", r"--\1 ", str(error))  # a program's words
        print(f"fixlip: {text}", file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print("fixlip: there is not enough memory for this: use fewer --masks", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command; what is parsed has a function ``run``."""
    described = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    top = argparse.ArgumentParser(prog="fixlip", description=TOP, **described)
    top.add_argument("--version", action="version", version=metadata.version("fixlip"))
    commands = top.add_subparsers(
        dest="command", required=True, metavar="{explain,models,notebooks}"
    )
    explain = commands.add_parser("explain", description=EXPLAIN, **described)
    _add_explain(explain)
    listing = commands.add_parser("models", description=MODELS, **described)
    listing.add_argument("name", nargs="?", default="", help="a part of the name")
    _add_formats(listing)
    listing.set_defaults(run=models.show)
    copy = commands.add_parser("notebooks", description=NOTEBOOKS, **described)
    copy.add_argument("folder", help="a folder that does not exist yet, or is empty")
    copy.set_defaults(run=notebooks.copy)
    return top


def _add_explain(explain: argparse.ArgumentParser) -> None:
    add = explain.add_argument
    add("image", help="a picture; or a .csv file of pairs, without a caption")
    add("caption", nargs="?", help="what it is compared with, in quotes")
    add("-o", "--out", metavar="DIR", help="folder for the results")
    add("--model", default="demo-clip", help="see `fixlip models` (demo-clip, of coloured shapes)")
    add("--pretrained", metavar="WEIGHTS", help="a tag such as openai, or a checkpoint file")
    add("--tokenizer", metavar="DIR", help="a folder with a Hugging Face tokenizer")
    add("--device", help="such as cpu, cuda or mps (the best there is)")
    add("--dtype", help="float32, bfloat16 or float16 (float32)")
    add("--p", type=float, default=0.5, help="chance that a player is kept (0.5)")
    add("--masks", type=int, default=2048, help="masks of the image; the caption: half (2048)")
    add("--tolerance", type=float, help="in place of --masks: the relative error to reach")
    add("--seed", type=int, default=0, help="of the masks (0)")
    add("--image-players", default="patches", help="patches, or blocks such as 2x2 (patches)")
    add("--text-players", default="tokens", help="tokens or words (tokens)")
    add("--top", type=int, default=10, help="rows of the table (10)")
    _add_formats(explain)

    def run(options: argparse.Namespace) -> int:
        many = options.image.lower().endswith(".csv")
        if many == (options.caption is not None):
            explain.error(
                "a .csv file of pairs goes without a caption"
                if many
                else "a picture needs a caption: fixlip explain photo.jpg 'a dog on a sofa'"
            )
        if many and options.out is None:
            explain.error("many pairs need a folder for their results: -o DIR")
        return (pairs if many else one).explain(options)

    explain.set_defaults(run=run)


def _add_formats(command: argparse.ArgumentParser) -> None:
    formats = command.add_mutually_exclusive_group()
    formats.add_argument("--json", action="store_true", help="print everything as JSON")
    formats.add_argument("--csv", action="store_true", help="print the whole table as CSV")


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    before = warnings.showwarning

    def show(message: Warning | str, *_: object, **__: object) -> None:
        print(f"fixlip: warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
