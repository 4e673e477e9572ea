"""InteractionLIME against its objective, written out."""

import numpy as np
import pytest
import torch
from toy_games import Smooth

import fixlip
from fixlip.explainers import lime
from fixlip.paths import root
from fixlip.sampler import bernoulli, side_seeds


class Bilinear:
    """Sides whose inner product is z_a' W z_b + 1."""

    def __init__(self, matrix, names):
        self.matrix, self.names, self.n = matrix, names, len(matrix)

    def embed(self, masks):
        return torch.nn.functional.pad(masks.double() @ self.matrix, (1, 0), value=1.0)


def sides(n_I=4, n_T=3):
    return Smooth(n_I, seed=0), Smooth(n_T, seed=1)


def literal(image, text, samples, drop, weight_decay, seed):
    """Normal equations of the weighted ridge, one sample and one pair at a time."""
    masks, rows, whole = [], [], []
    for side, own in zip((image, text), side_seeds(seed), strict=True):
        z = bernoulli(side.n, samples, p=1 - drop, seed=own, antithetic=False).masks
        masks.append(z.double().numpy())
        rows.append(side.embed(z).numpy())
        whole.append(side.embed(torch.ones(1, side.n, dtype=torch.bool)).numpy()[0])
    n_I, n_T = image.n, text.n
    size = n_I * n_T
    left, right = np.zeros((size + 1, size + 1)), np.zeros(size + 1)
    for k in range(samples):
        x = np.zeros(size + 1)
        for i in range(n_I):
            for t in range(n_T):
                x[i * n_T + t] = masks[0][k, i] / n_I**0.5 * masks[1][k, t] / n_T**0.5
        x[size] = 1
        near = [
            r[k] @ w / np.linalg.norm(r[k]) / np.linalg.norm(w)
            for r, w in zip(rows, whole, strict=True)
        ]
        pi = max(0, (near[0] + near[1]) / 2)
        left += pi * np.outer(x, x) / samples
        right += pi * x * (rows[0][k] @ rows[1][k]) / samples
    left[:size, :size] += weight_decay / 2 * np.eye(size)
    solved = np.linalg.solve(left, right)
    return solved[:size].reshape(n_I, n_T) / (n_I * n_T) ** 0.5, solved[size]


@pytest.mark.parametrize("samples", [300, 9])  # more and fewer samples than the 12 pairs
def test_the_exact_fit_solves_the_normal_equations(samples):
    W, c = literal(*sides(), samples, 0.3, 1e-3, 5)
    pair = lime.explain(*sides(), samples=samples, seed=5)
    np.testing.assert_allclose(pair.cross, W, atol=1e-9)
    assert pair.info["fit"]["constant"] == pytest.approx(c)
    assert pair.e0 == 0 and not pair.e1.any() and not pair.e2[:4, :4].any()


def everything(found):
    """The constant and all interactions."""
    return np.array([found.info["fit"]["constant"], *found.cross.ravel()])


def test_gradient_descent_comes_to_the_exact_fit():
    options = {"samples": 64, "weight_decay": 0.1, "seed": 1}
    exact = everything(lime.explain(*sides(), **options))
    apart = [
        np.abs(
            everything(
                lime.explain(
                    *sides(), **options, fit="sgd", epochs=epochs, learning_rate=0.05, batch_size=64
                )
            )
            - exact
        ).max()
        for epochs in (30, 300, 3000)
    ]
    assert apart[0] > apart[1] > apart[2] and apart[2] < 1e-6 * np.abs(exact).max()
    small = everything(
        lime.explain(*sides(), **options, fit="sgd", epochs=300, learning_rate=0.01, batch_size=8)
    )
    assert np.corrcoef(small, exact)[0, 1] > 0.99


def test_a_bilinear_similarity_is_found_and_the_constant_stands_apart():
    rng = torch.Generator().manual_seed(0)
    left, right = (torch.rand(n, 4, generator=rng, dtype=torch.float64) for n in (5, 3))
    a, b = Bilinear(left, tuple("abcde")), Bilinear(right, tuple("xyz"))
    pair = lime.explain(a, b, samples=400, weight_decay=1e-10, scale=2.0)
    np.testing.assert_allclose(pair.cross, 2 * (left @ right.T).numpy(), atol=1e-6)
    assert pair.info["fit"]["constant"] == pytest.approx(2, abs=1e-6)
    assert everything(pair).sum() == pytest.approx(pair.grand_value, abs=1e-5)
    assert pair.empty_value == 2


def test_the_seed_decides():
    for fit in ("exact", "sgd"):
        one, two, other = (
            lime.explain(*sides(), samples=50, fit=fit, epochs=2, seed=s).cross for s in (0, 0, 1)
        )
        assert one.tolist() == two.tolist() != other.tolist()


def test_one_player_per_side():
    assert lime.explain(*sides(1, 1), samples=20).cross.shape == (1, 1)


def test_on_a_model_with_captions_and_with_two_images():
    encoder = fixlip.load("demo-clip", device="cpu")
    image = encoder.image(root() / "data/scenes/val/000000000209.png", players="2x2")
    text = encoder.text("a blue heart", players="words")
    pair = lime.explain(image, text, samples=60)
    assert pair.cross.shape == (9, 3) and pair.cross.dtype == np.float64
    assert pair.grand_value == pytest.approx(encoder.logit(image.picture, "a blue heart"), abs=1e-3)
    assert pair.on_grid(pair.given("heart")).shape == (6, 6)
    two = lime.explain(image, encoder.image(image.picture), samples=60)
    assert two.cross.shape == (9, 36) and two.info["text"]["kind"] == "image"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"fit": "adam"}, "fit must be"),
        ({"drop": 1.0}, "drop is a probability between 0 and 1, got 1.0"),
        ({"samples": 0}, "samples must be a whole number of 1 or more, got 0"),
        ({"weight_decay": -1}, "weight_decay must be a number of 0 or more"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"epochs": 1.5}, "epochs must be a whole number of 1 or more, got 1.5"),
        ({"fit": "sgd", "learning_rate": 50.0}, "gradient descent diverged"),
        ({"fit": "sgd", "learning_rate": 50.0, "epochs": 2000}, "gradient descent diverged"),
    ],
)
def test_refusals(option, message):
    with pytest.raises(ValueError, match=message):
        lime.explain(*sides(), **{"samples": 40, **option})


def test_different_models_and_samples_unlike_the_original_are_refused():
    models = [{"model": {"name": m, "fingerprint": m}} for m in "xy"]
    with pytest.raises(ValueError, match="make both sides with the same encoder"):
        lime.explain(*(Smooth(2, info=info) for info in models))

    class Opposite:
        n, names = 4, tuple("abcd")

        def embed(self, masks):
            return torch.where(masks.all(1, keepdim=True), 1.0, -1.0)

    with pytest.raises(ValueError, match="unlike its original"):
        lime.explain(Opposite(), Opposite(), samples=2, drop=0.9)


def test_without_penalty_and_with_few_samples_it_warns():
    with pytest.warns(UserWarning, match="interactions undetermined"):
        lime.explain(*sides(), samples=5, weight_decay=0)
