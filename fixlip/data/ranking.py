"""The best caption of each picture by a model's score, and the pictures ranked by that score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from tqdm.auto import tqdm

from fixlip.checks import integer, warn
from fixlip.data.examples import Example

if TYPE_CHECKING:
    from fixlip.encoders import Encoder


def best_captions(
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    batch_size: int = 64,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Find the best caption of every picture, and rank the pictures by it.

    Every picture and every distinct caption is embedded once, with all players kept. A row per
    picture, the highest logit first: `id`; `caption`, which of the example's; `logit`, as
    `Encoder.logit` gives it; and `rank`, from 0. The published insertion and deletion takes the
    ranks 0 to 999 of Karpathy's test split of COCO, ``ranked[:1000]``, for CLIP and the ranks 900
    to 999 for SigLIP 2. Warns for pictures and captions that the model cannot read and examples
    without captions, which are left out. (The published program gives pictures that its processor
    rejects the logit 0.)

    Parameters
    ----------
    encoder, examples : Encoder, sequence of Example
    batch_size, progress : int, bool
        Pictures or captions per forward pass; whether to show a progress bar, by default only on a
        terminal.

    References
    ----------
    Baniecki et al., NeurIPS 2025, figure 3.

    Examples
    --------
    >>> import fixlip
    >>> from fixlip.data.coco import read_coco
    >>> from fixlip.paths import root
    >>> examples = read_coco(root() / "data/scenes")[:3]
    >>> ranked = best_captions(fixlip.load("demo-clip", device="cpu"), examples)
    >>> ranked.columns.tolist(), len(ranked)
    (['id', 'caption', 'logit', 'rank'], 3)
    """
    integer("batch_size", batch_size)
    known = [example for example in examples if example.captions]
    if len(known) < len(examples):
        warn(f"{len(examples) - len(known)} examples have no captions and are left out")
    texts = list(dict.fromkeys(caption for example in known for caption in example.captions))
    bar = tqdm(
        total=len(known) + len(texts),
        desc="pictures and captions",
        leave=False,
        disable=None if progress is None else not progress,
    )
    rows, broken, unread = [], [], []
    with bar, torch.no_grad():
        texts, table = _captions(encoder, texts, batch_size, unread, bar)  # (texts, D)
        place = {text: i for i, text in enumerate(texts)}
        known = [example for example in known if not place.keys().isdisjoint(example.captions)]
        for seen, embeddings in _pictures(encoder, known, batch_size, broken, bar):
            for example, embedding in zip(seen, embeddings, strict=True):
                own = [k for k, caption in enumerate(example.captions) if caption in place]
                rows_of = [place[example.captions[k]] for k in own]
                logits = encoder.logit_scale * (table[rows_of] @ embedding) + encoder.logit_bias
                best = int(logits.argmax())
                rows.append((example.id, own[best], float(logits[best])))
    if unread:
        warn(f"{len(unread)} captions cannot be read and are left out, the first: {unread[0]}")
    if broken:
        warn(f"{len(broken)} pictures cannot be read and are left out, the first is {broken[0]}")
    found = pd.DataFrame(rows, columns=["id", "caption", "logit"])
    found = found.sort_values("logit", ascending=False, kind="stable", ignore_index=True)
    return found.assign(rank=range(len(found)))


def _captions(
    encoder: Encoder, texts: Sequence[str], size: int, unread: list[str], bar: tqdm
) -> tuple[list[str], torch.Tensor]:
    """The captions that the model reads, and their embeddings, (texts, D), float64, on the CPU."""
    read, done = [], [torch.zeros(0, dtype=torch.float64)]
    for start in range(0, len(texts), size):
        ids = []
        for text in texts[start : start + size]:
            try:
                ids.append(encoder.text(text).ids)
                read.append(text)
            except ValueError as error:
                unread.append(str(error))
        if ids:
            embeddings = encoder.model.encode_text(torch.cat(ids), normalize=True)  # (batch, D)
            done.append(embeddings.cpu().double())
        bar.update(len(texts[start : start + size]))
    return read, torch.cat(done[1:] or done)


def _pictures(
    encoder: Encoder, examples: Sequence[Example], size: int, broken: list[str], bar: tqdm
) -> Iterator[tuple[list[Example], torch.Tensor]]:
    """Batches of examples, and their pictures' embeddings, (batch, D), float64, on the CPU."""
    for start in range(0, len(examples), size):
        seen, pixels = [], []
        for example in examples[start : start + size]:
            try:
                pixels.append(encoder.image(example.image).pixels)
                seen.append(example)
            except (OSError, ValueError) as error:
                broken.append(f"{example.image} ({error})")
        bar.update(len(examples[start : start + size]))
        if seen:
            with encoder.precision():
                embeddings = encoder.model.encode_image(torch.cat(pixels), normalize=True)
            yield seen, embeddings.cpu().double()
