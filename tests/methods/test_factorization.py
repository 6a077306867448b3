"""Factorisations against scikit-learn, the singular value decomposition, and activations whose parts are known."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import NMF
from torch import Tensor

from hookmap.errors import HookmapError
from hookmap.methods.factorization import Factors, joined_signs, nmf, pca, split_signs

SIZES = [(60, 20, 4), (20, 60, 5), (49, 300, 8), (500, 16, 3), (9, 9, 1), (12, 9, 4)]


def places(count: int, channels: int, parts: int, noise: float = 0.3) -> Tensor:
    """Sparse sums of sparse parts with noise, as activations after a ReLU are."""
    generator = torch.Generator().manual_seed(count)

    def sparse(*size: int) -> Tensor:
        return torch.rand(size, generator=generator) * (torch.rand(size, generator=generator) < 0.5)

    x = sparse(count, parts) @ sparse(parts, channels)
    return (x + noise * torch.randn(count, channels, generator=generator)).clamp(min=0)


def error_of(x: Tensor, factors: Factors) -> float:
    return float((x - factors.memberships @ factors.concepts).double().norm())


def matched(found: Tensor, true: Tensor) -> list[int]:
    """For each true row, the found row that points most nearly the same way, each once."""
    cosine = torch.nn.functional.normalize(true.double()) @ torch.nn.functional.normalize(found.double()).T
    chosen = cosine.argmax(1).tolist()
    assert len(set(chosen)) == len(chosen)
    assert cosine.amax(1).min() > 0.999
    return chosen


@pytest.mark.parametrize(("count", "channels", "k"), SIZES)
@pytest.mark.parametrize("init", ["nndsvda", "random"])
def test_nmf_explains_as_much_as_scikit_learn(count: int, channels: int, k: int, init: str) -> None:
    x = places(count, channels, k + 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = NMF(k, init=init, max_iter=300, tol=1e-5, random_state=0)
        w = peer.fit_transform(x.double().numpy())
    theirs = float(np.linalg.norm(x.double().numpy() - w @ peer.components_))
    ours = nmf(x, k)
    assert (ours.memberships.min(), ours.concepts.min()) >= (0, 0)
    assert error_of(x, ours) <= 1.02 * theirs


def test_known_parts_are_recovered() -> None:
    # Every part has places of its own and channels of its own: the factorisation is unique.
    generator = torch.Generator().manual_seed(1)
    memberships = torch.cat([torch.eye(3), torch.rand(40, 3, generator=generator)])
    parts = torch.rand(3, 24, generator=generator) * torch.eye(3).repeat_interleave(8, 1).add(0.4 * torch.ones(3, 24))
    parts[0, 8:12] = parts[1, 16:20] = parts[2, :4] = 0
    found = nmf(memberships @ parts, 3, tolerance=1e-12, most_rounds=5000)
    order = matched(found.concepts, parts)
    assert torch.allclose(found.memberships[:, order], memberships / memberships.amax(0), atol=0.02)
    assert torch.allclose(found.concepts[order], parts * memberships.amax(0)[:, None], atol=0.05)
    assert float(found.shares.sum()) == pytest.approx(1, abs=1e-4)


def test_the_solution_meets_the_conditions_of_karush_kuhn_and_tucker() -> None:
    x = places(50, 30, 6).double()
    w, h, _ = nmf(x, 4, tolerance=0, most_rounds=3000)
    for factor, gradient in ((w, (w @ h - x) @ h.T), (h, w.T @ (w @ h - x))):
        assert gradient.min() > -1e-3
        assert (gradient * factor).abs().max() < 1e-3


def test_scale_and_shares_are_those_documented() -> None:
    x = places(80, 40, 7)
    w, h, shares = nmf(x, 5)
    assert torch.allclose(w.amax(0), torch.ones(5))
    assert shares.tolist() == sorted(shares.tolist(), reverse=True)
    assert shares.min() >= 0
    explained = 1 - error_of(x, Factors(w, h, shares)) ** 2 / float(x.double().square().sum())
    assert float(shares.sum()) == pytest.approx(explained, abs=1e-3)
    each = torch.stack([(x * torch.outer(w[:, j], h[j])).sum() for j in range(5)]) / x.square().sum()
    assert torch.allclose(shares, each, atol=1e-5)


@pytest.mark.parametrize("factor", [1e-18, 1e-6, 1e6, 1e15])
def test_units_dont_matter(factor: float) -> None:
    x = places(30, 20, 4)
    plain, scaled = nmf(x, 3), nmf(x * factor, 3)
    assert torch.allclose(scaled.memberships, plain.memberships, atol=1e-4)
    assert torch.allclose(scaled.concepts / factor, plain.concepts, atol=1e-4)
    assert torch.allclose(scaled.shares, plain.shares, atol=1e-5)


def test_the_order_of_places_and_channels_doesnt_matter() -> None:
    x = places(70, 30, 5)
    rows, columns = torch.randperm(70), torch.randperm(30)
    plain, mixed = nmf(x, 4), nmf(x[rows][:, columns], 4)
    order = matched(mixed.concepts, plain.concepts[:, columns])
    assert torch.allclose(mixed.memberships[:, order], plain.memberships[rows], atol=1e-3)


def test_nothing_is_random_unless_asked_for() -> None:
    x = places(40, 30, 6)
    state = torch.get_rng_state()
    first, again = nmf(x, 4), nmf(x, 4)
    seeded = [nmf(x, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seeded[0], seeded[1], strict=True))
    assert not torch.equal(seeded[0].memberships, seeded[2].memberships)
    assert error_of(x, first) <= 1.02 * min(error_of(x, one) for one in seeded)


def test_more_rounds_never_explain_less() -> None:
    x = places(60, 40, 8)
    errors = [error_of(x, nmf(x, 5, tolerance=0, most_rounds=rounds)) for rounds in (1, 2, 4, 8, 16, 64)]
    assert errors == sorted(errors, reverse=True)


def test_fewer_kinds_of_places_than_concepts() -> None:
    x = torch.rand(2, 6).repeat_interleave(10, 0)
    w, h, shares = nmf(x, 4)
    assert all(bool(torch.isfinite(t).all()) for t in (w, h, shares))
    assert error_of(x, Factors(w, h, shares)) < 0.02 * float(x.norm())


def test_a_single_place_or_channel() -> None:
    row = torch.rand(1, 5)
    w, h, shares = nmf(row, 1)
    assert torch.allclose(w @ h, row)
    assert shares.tolist() == pytest.approx([1])
    assert torch.allclose(nmf(row.T, 1).memberships, row.T / row.amax())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    x = places(30, 20, 3, noise=0.1)
    for factorise in (nmf, pca):
        plain, other = factorise(x, 2), factorise(x.to(dtype), 2)
        assert {t.dtype for t in other} == {torch.float64 if dtype == torch.float64 else torch.float32}
        for ours, theirs in zip(plain, other, strict=True):
            assert torch.allclose(ours, theirs.float(), atol=0.05)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (9, 9)])
def test_pca_is_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    x = torch.randn(*shape, dtype=torch.float64) + 3
    u, s, vh = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    memberships, directions, shares = pca(x, 5)
    signs = torch.sign((vh[:5] * directions).sum(1))
    assert torch.allclose(directions, vh[:5] * signs[:, None], atol=1e-8)
    assert torch.allclose(memberships, (u * s)[:, :5] * signs, atol=1e-7)
    assert torch.allclose(shares, s[:5] ** 2 / (s**2).sum(), atol=1e-10)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    assert bool((largest > 0).all())
    assert torch.allclose(directions @ directions.T, torch.eye(5, dtype=torch.float64), atol=1e-8)


def test_pca_of_few_kinds_of_places_has_no_invented_directions() -> None:
    x = torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 0.0]]).repeat(5, 1)
    memberships, directions, shares = pca(x, 3)
    assert shares.tolist() == pytest.approx([1, 0, 0])
    assert not directions[1:].any()
    assert torch.allclose(memberships @ directions + x.mean(0), x, atol=1e-5)


def test_signs_are_split_and_joined() -> None:
    x = torch.randn(6, 4)
    assert split_signs(x).min() >= 0
    assert torch.equal(joined_signs(split_signs(x)), x)
    # On the signed parts themselves: two opposite vectors are two concepts, with memberships that never cancel.
    part = torch.tensor([1.0, -2.0, 0.5])
    w, h, _ = nmf(split_signs(torch.stack([part, 0.5 * part, -part, -0.25 * part])), 2)
    order = matched(joined_signs(h), torch.stack([part, -part]))
    expected = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 1.0], [0.0, 0.25]])
    assert torch.allclose(w[:, order], expected, atol=1e-3)


@pytest.mark.parametrize("factorise", [nmf, pca])
@pytest.mark.parametrize(
    ("x", "k", "sentence"),
    [
        (torch.rand(5, 9), 6, "6 concepts were asked for of 5 places with 9 channels; expected at most 5"),
        (torch.rand(9, 5), 6, "of 9 places with 5 channels; expected at most 5"),
        (torch.rand(9, 5), 0, "0 concepts were asked for; expected 1 or more"),
        (torch.rand(9, 5), -1, "expected 1 or more"),
        (torch.zeros(9, 5), 2, "zero everywhere"),
        (torch.full((9, 5), float("nan")), 2, "NaN or infinite"),
        (torch.tensor([[1.0, float("inf")]]), 1, "NaN or infinite"),
        (torch.rand(2, 3, 4), 1, r"shape \(2, 3, 4\); expected \(places, channels\)"),
    ],
)
def test_what_cant_be_factorised_is_said(factorise, x: Tensor, k: int, sentence: str) -> None:
    with pytest.raises(HookmapError, match=sentence):
        factorise(x, k)


def test_negative_places_and_equal_places_are_said() -> None:
    with pytest.raises(HookmapError, match="values down to -2, and NMF is defined for non-negative ones; split"):
        nmf(torch.tensor([[1.0, -2.0], [0.0, 1.0]]), 1)
    with pytest.raises(HookmapError, match="all places are the same"):
        pca(torch.ones(6, 3), 2)


def test_places_are_not_written_to() -> None:
    x = places(20, 10, 3).double()
    before = x.clone()
    nmf(x, 2)
    pca(x, 2)
    assert torch.equal(x, before)
