"""Error against encoder passes: every estimator of the order-2 weighted Banzhaf explanation.

    python benchmarks/estimators.py            our estimators, p = .3, .5, .7
    python benchmarks/estimators.py --peers    also those of shapiq 1.8 (Python 3.12), p = .5 only

A pass is one distinct masked input through one tower, so an estimator costs the distinct image
masks plus the distinct text masks that it asked for, and a text mask seen before is free for
everyone. Every estimator spends as much of a budget as it can. The truth is a fit to many more
image masks and to all text masks; errors are root mean squares relative to that of the truth.
Results go to data/estimators.json; rows of estimators that are not run stay as they are.
"""

import argparse
import bisect
import importlib.metadata
import json
import re
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import describe
from means import adjusted, means, regression, uniform
from passes import Counted, joint_masks, side_masks
from peers import PACKAGES, SLOW, peers

import fixlip
from fixlip.files import user_path
from fixlip.sampler import Side, split_budget, sweep

ROOT = Path(__file__).parents[1]
BUDGETS = (128, 256, 512, 1024, 2048, 4096)
REFERENCE = 32_768  # image masks behind the truth
PARTS = ("cross", "within", "image", "first")
Terms = tuple[np.ndarray, np.ndarray | None]  # Banzhaf values (n,); pairs (n, n), if estimated


# --- fixlip's own estimators --------------------------------------------------------------------


def split(
    image: Counted,
    text: Counted,
    budget: int,
    p: float,
    seed: int,
    *,
    sampling: str = "antithetic",
    ridge: float | str = "auto",
) -> Terms:
    """Two sweeps and `fixlip.solve`."""
    samples = side_masks(image, text, budget, p, seed, sampling)
    swept = [sweep(s, masks=m) for s, m in zip((image, text), samples, strict=True)]
    return _read(fixlip.solve(*swept, ridge=ridge, errors=False))


def split_paper(
    image: Counted, text: Counted, budget: int, p: float, seed: int, *, sampling: str
) -> Terms:
    """As the FIxLIP experiments: their rule for the masks per side, distinct masks, no ridge."""

    def rule(values: int) -> tuple[int, int]:
        return split_budget(image.n, text.n, values)

    def passes(values: int) -> int:
        m_image, m_text = rule(values)
        return m_image + 2 + min(m_text + 2, 2**text.n)

    values = range(4, budget**2)
    masks = rule(values[bisect.bisect_right(values, budget, key=passes) - 1])
    swept = [
        sweep(side, masks=m, p=p, seed=2 * seed + k, sampling=sampling)
        for k, (side, m) in enumerate(zip((image, text), masks, strict=True))
    ]
    return _read(fixlip.solve(*swept, ridge=0, errors=False))


def agnostic(
    image: Counted,
    text: Counted,
    budget: int,
    p: float,
    seed: int,
    *,
    sampling: str = "antithetic",
    ridge: float | str = "auto",
) -> Terms:
    """`fixlip.estimate` on joint masks."""
    sample = joint_masks(image, text, budget, p, seed, sampling)
    return _read(fixlip.estimate(fixlip.Game(image, text), masks=sample, ridge=ridge))


def _read(explanation: fixlip.Explanation) -> Terms:
    return explanation.attributions(), explanation.e2


# --- other ways to turn the same answers into terms ---------------------------------------------


def agnostic_by(
    how: Callable, image: Counted, text: Counted, budget: int, p: float, seed: int
) -> Terms:
    """Joint masks; `how` turns the game's values into terms."""
    sample = joint_masks(image, text, budget, p, seed, "antithetic")
    values = fixlip.Game(image, text)(sample.masks)
    first, pairs = how(sample, values[:, None])
    return first[:, 0].numpy(), pairs[..., 0].numpy()


def split_by(
    how: Callable, image: Counted, text: Counted, budget: int, p: float, seed: int
) -> Terms:
    """One sweep per side; `how` turns embeddings into slopes, and their means into pairs."""
    samples = side_masks(image, text, budget, p, seed, "antithetic")
    swept = [sweep(s, masks=m) for s, m in zip((image, text), samples, strict=True)]
    E = [s.embeddings.double() for s in swept]
    mean = [s.weights @ e for s, e in zip(samples, E, strict=True)]  # (D,) each
    slopes = [how(s, e)[0] for s, e in zip(samples, E, strict=True)]  # (n, D) each
    first, within = [], []
    for sample, e, other in zip(samples, E, mean[::-1], strict=True):
        values, pairs = how(sample, (e @ other)[:, None])
        first.append(values[:, 0])
        within.append(pairs[..., 0])
    pairs = torch.block_diag(*within)
    pairs[: image.n, image.n :] = slopes[0] @ slopes[1].T
    pairs[image.n :, : image.n] = pairs[: image.n, image.n :].T
    scale = fixlip.Game(image, text).scale
    return (scale * torch.cat(first)).numpy(), (scale * pairs).numpy()


def ours(p: float) -> dict[str, Callable]:
    """Estimators by name. At p = .5, leverage sampling is plain independent sampling."""
    found = {
        "split, antithetic, ridge": split,
        "split, antithetic, least squares": partial(split, ridge=0),
        "split, independent, ridge": partial(split, sampling="independent"),
        "split, independent, least squares": partial(split, sampling="independent", ridge=0),
        "split, paper's rule": partial(split_paper, sampling="distinct"),
        "split, paper's rule and weights": partial(split_paper, sampling="distinct-reference"),
        "split, direct means": partial(split_by, means),
        "split, regression-adjusted": partial(split_by, adjusted),
        "split, order-2 slopes": partial(split_by, regression),
        "split, uniform ridge": partial(split_by, uniform),
        "agnostic, antithetic, ridge": agnostic,
        "agnostic, antithetic, least squares": partial(agnostic, ridge=0),
        "agnostic, distinct, ridge": partial(agnostic, sampling="distinct"),
        "agnostic, distinct, least squares": partial(agnostic, sampling="distinct", ridge=0),
        "agnostic, direct means": partial(agnostic_by, means),
        "agnostic, regression-adjusted": partial(agnostic_by, adjusted),
        "agnostic, uniform ridge": partial(agnostic_by, uniform),
    }
    if p != 0.5:
        found["split, leverage, ridge"] = partial(split, sampling="leverage")
        found["agnostic, leverage, ridge"] = partial(agnostic, sampling="leverage")
    return found


# --- the experiment -----------------------------------------------------------------------------


def choose_pairs(count: int) -> list[tuple[str, str]]:
    """Scenes with their caption of two coloured shapes, evenly over the data set."""
    found = json.loads((ROOT / "data/scenes/annotations/captions_val.json").read_text())
    captions = [c for c in found["annotations"] if c["caption"].split()[3:4] == ["and"]]
    captions = [c for c in captions if len(c["caption"].split()) == 7]
    files = {image["id"]: image["file_name"] for image in found["images"]}
    return [
        (f"data/scenes/val/{files[c['image_id']]}", c["caption"])
        for c in captions[len(captions) // (2 * count) :: len(captions) // count][:count]
    ]


def parts(terms: Terms, n_image: int) -> dict[str, np.ndarray]:
    """The numbers of each part of an explanation."""
    first, pairs = terms
    if pairs is None:
        return {"first": first}
    i, j = np.triu_indices(len(first), 1)
    across, inside = (i < n_image) & (j >= n_image), j < n_image
    chosen = {"cross": across, "within": ~across, "image": inside}
    return {part: pairs[i[c], j[c]] for part, c in chosen.items()} | {"first": first}


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def truth(image: Side, text: Side, p: float) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The parts of the reference explanation, and their standard errors relative to them."""
    swept = [sweep(side, masks=REFERENCE, p=p, seed=10**6) for side in (image, text)]
    found = fixlip.solve(*swept, ridge=0)
    values = parts(_read(found), image.n)
    spread = parts((found.stderr.e1, found.stderr.e2), image.n)
    return values, {part: rms(spread[part]) / rms(values[part]) for part in PARTS[:3]}


def run(options: argparse.Namespace) -> tuple[list[dict], dict]:
    """Rows, one per estimator, p and budget, and the relative standard errors of the truth."""
    encoder = fixlip.load("demo-clip", device="cpu")
    errors: dict[tuple, list[dict]] = {}
    accuracy: dict[str, list[dict]] = {}
    for p in options.p:
        for file, caption in choose_pairs(options.pairs):
            image, text = encoder.image(ROOT / file), encoder.text(caption)
            target, spread = truth(image, text, p)
            accuracy.setdefault(str(p), []).append(spread)
            image, text = Counted(image), Counted(text)
            estimators = ours(p) | (peers(image.n + text.n) if options.peers and p == 0.5 else {})
            for name, estimator in estimators.items():
                if not re.search(options.only, name):
                    continue
                start = time.perf_counter()
                repeats = 1 if any(slow in name for slow in SLOW) else options.repeats
                for budget in options.budgets:
                    for seed in range(repeats):
                        one = errors.setdefault((name, p, budget), [])
                        one.append(attempt(estimator, image, text, budget, p, seed, target))
                print(f"p={p} {name}: {time.perf_counter() - start:.0f} s, {one[-1]}", flush=True)
    rows = [summary(*key, runs) for key, runs in errors.items()]
    means = {p: {k: _short(np.mean([s[k] for s in v])) for k in v[0]} for p, v in accuracy.items()}
    return rows, means


def attempt(
    estimator: Callable,
    image: Counted,
    text: Counted,
    budget: int,
    p: float,
    seed: int,
    target: dict,
) -> dict:
    """Passes and relative errors of one run, or why there are none."""
    image.seen.clear()
    text.seen.clear()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            terms = parts(estimator(image, text, budget, p, seed), image.n)
        result = {part: rms(terms[part] - target[part]) / rms(target[part]) for part in terms}
    except Exception as error:  # an estimator that fails is a result, too
        return {"failed": f"{type(error).__name__}: {error}"}
    if not np.isfinite(list(result.values())).all():
        return {"failed": "not finite"}
    return {"passes": len(image.seen) + len(text.seen)} | result


def summary(name: str, p: float, budget: int, runs: list[dict]) -> dict:
    """One row: means over pairs and repeats, with standard errors."""
    good = [r for r in runs if "failed" not in r]
    row: dict = {"estimator": name, "p": p, "budget": budget, "runs": len(good)}
    if good:
        row["passes"] = round(float(np.mean([r["passes"] for r in good])), 1)
    for part in PARTS:
        values = [r[part] for r in good if part in r]
        if values:
            row[part] = _short(np.mean(values))
        if len(values) > 1:
            row[f"{part}_se"] = _short(np.std(values, ddof=1) / len(values) ** 0.5)
    reasons = sorted({r["failed"] for r in runs if "failed" in r})
    return row | ({"failed": "; ".join(reasons)[:200]} if reasons else {})


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", action="store_true", help="also shapiq's estimators, p = .5")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--p", type=float, nargs="+", default=[0.5, 0.3, 0.7])
    parser.add_argument("--only", default="", help="estimators whose name has this pattern")
    parser.add_argument("--out", type=user_path, default=ROOT / "data/estimators.json")
    options = parser.parse_args()
    about = {"machine": describe()}
    if options.peers:  # what is missing ends the program here, not after hours
        try:
            about |= {package: importlib.metadata.version(package) for package in PACKAGES}
        except importlib.metadata.PackageNotFoundError as error:
            parser.error(f"--peers needs {error.name}: Python 3.12 or later, and fixlip[peers]")
    rows, accuracy = run(options)
    old = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    run_now = {(r["estimator"], r["p"], r["budget"]) for r in rows}
    kept = [r for r in old["rows"] if (r["estimator"], r["p"], r["budget"]) not in run_now]
    new = old | {"peers" if options.peers else "fixlip": about}
    new["truth"] = old.get("truth", {}) | accuracy
    new["pairs"] = choose_pairs(options.pairs)
    head = json.dumps({k: v for k, v in new.items() if k != "rows"}, indent=1)
    lines = ",\n".join(json.dumps(r) for r in rows + kept)
    options.out.write_text(f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
