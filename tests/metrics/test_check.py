from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from scipy import stats

import hookmap as hm
from coloured import colours, pictures
from hookmap.attribution.scoring import Scoring
from hookmap.results.check import Check
from pictures import PHOTOS


def test_the_right_map_is_strong_and_noise_is_no_better_than_random() -> None:
    lens, x = colours(), pictures(6)
    right = lens.explain(x, layer="1", method="hirescam", check=True)
    noise = [lens.explain(x[i % 6][None], layer="1", method="random", seed=i, check=True)[0] for i in range(18)]
    assert all(h.check.word in ("strong", "weak") for h in right)
    assert all(h.check.stability > 0.9 for h in right)
    percentiles = torch.tensor([h.check.percentile for h in noise])
    # Of 18 that are anywhere between 0 and 100, the mean is 50 with a standard error of 7.
    assert 30 < percentiles.mean() < 70
    assert (percentiles < 80).sum() >= 11
    assert torch.tensor([h.check.percentile for h in right]).mean() > 92
    noise[0].check = Check(0, 1, 1, 1)
    assert noise[0].caveat == "no better than random"


def test_a_map_upside_down_is_below_nearly_all_random_ones() -> None:
    lens, x = colours(), pictures(1)

    @torch.no_grad()
    def reversed_hirescam(activation: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return -(activation * gradient).sum(1)

    heatmap = lens.explain(x, layer="1", method=reversed_hirescam)[0]
    check = lens.check(heatmap)
    assert check.percentile < 10
    assert str(check).startswith("no better than random")


@pytest.mark.parametrize("size", [-4.0, -0.3, 0.0, 0.5, 2.0, 9.0])
def test_the_percentile_is_students(size: float) -> None:
    assert Check(size * 0.7, 0.7, 1, 1).percentile == pytest.approx(100 * stats.t.cdf(size, 5), abs=1e-9)


def test_without_any_spread_the_sign_decides() -> None:
    assert [Check(value, 0, 1, 1).percentile for value in (-1, 0, 1)] == [0, 50, 100]


def test_it_takes_at_most_sixty_passes_and_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    lens, x = colours(), pictures(1)
    heatmap = lens.explain(x, layer="1")[0]
    passes, make = [0], Scoring.of

    def counted(self: Scoring, *given: object) -> list:
        def counting(scorer):
            def count(changed: torch.Tensor) -> torch.Tensor:
                passes[0] += len(changed)
                return scorer(changed)

            return count

        return [counting(scorer) for scorer in make(self, *given)]

    monkeypatch.setattr(Scoring, "of", counted)
    model = lens.model
    model.train()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    lens.check(heatmap)
    assert 40 < passes[0] <= 56  # and two noisy copies, forwards and backwards
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:the heatmap of .* is noisy:hookmap.HookmapWarning")
def test_methods_that_mask_are_not_asked_again_for_stability() -> None:
    lens = colours()
    assert lens.explain(pictures(1), method="rise", budget=20, check=True)[0].check.stability is None


def test_it_is_kept_in_files_and_pickles(tmp_path: Path) -> None:
    explanation = colours().explain(pictures(2), layer="1", check=True)
    checks = [h.check for h in explanation]
    assert [h.check for h in hm.load(explanation.save(tmp_path / "x.npz"))] == checks
    assert explanation.table["check"].tolist() == [check.word for check in checks]
    assert explanation.table["check_percentile"].tolist() == [check.percentile for check in checks]
    assert [h.check for h in pickle.loads(pickle.dumps(explanation))] == checks


def test_a_run_has_it_in_its_table(tmp_path: Path) -> None:
    lens, x = colours(), pictures(5)
    run = hm.run(x, lens, tmp_path / "run", layer="1", check=True, batch_size=3, progress=False)
    expected = [h.check for h in lens.explain(x, layer="1", check=True)]
    assert run.table["check"].tolist() == [check.word for check in expected]
    assert run.table["check_percentile"].tolist() == pytest.approx([c.percentile for c in expected], abs=0.01)
    assert run.table["check_stability"].tolist() == pytest.approx([c.stability for c in expected], abs=1e-3)


def test_tiles_and_heatmaps_of_others_get_a_sentence() -> None:
    lens = colours()
    heatmap = lens.explain(pictures(1), layer="1")[0]
    heatmap.question = None
    with pytest.raises(hm.HookmapError, match=r"wasn't made by Lens\.explain"):
        lens.check(heatmap)
    with pytest.raises(hm.HookmapError, match="tiles can't be checked"):
        hm.Lens().explain_in_tiles(PHOTOS / "cat.jpg", check=True)


def test_the_command_line_says_it(hookmap, tmp_path: Path) -> None:
    result = hookmap("explain", PHOTOS / "cat.jpg", "--check", "-o", tmp_path / "cat.png")
    assert result.code == 0
    assert "of random maps; the hot quarter alone scores" in result.out
