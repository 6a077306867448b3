from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import hookmap as hm
from coloured import SIDE, colours, pictures
from hookmap.attribution.scoring import Scoring
from hookmap.hooks.fingerprint import fingerprint
from hookmap.results.question import Settings
from hookmap.verdict.candidates import Candidate, maps_of
from hookmap.verdict.folder import Folder
from hookmap.verdict.gates import class_similarity, leakage, mosaic_of, paste
from hookmap.verdict.stages import Split

METHODS = ["hirescam", "eigencam", "random"]


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> tuple[hm.Verdict, Path]:
    folder = tmp_path_factory.mktemp("comparison") / "verdict"
    return hm.compare(colours(), pictures(30), methods=METHODS, layers="1", out=folder, progress=False), folder


def test_the_method_that_knows_wins_and_others_fail_for_the_right_reason(verdict: tuple[hm.Verdict, Path]) -> None:
    result, _ = verdict
    assert result.best is not None
    assert result.best.method in ("hirescam", "gradcam")
    faults = {s.name: " ".join(s.faults) for s in result.contestants}
    assert "the same map whatever class" in faults["Eigen-CAM at 1"]
    assert "isn't better than" in faults["Random at 1"]
    means = {s.name: s.mean for s in result.judgement.standings}
    assert means[result.judgement.best or ""] > means["Mean activation at 1"] > means["Random at 1"]


def test_it_is_said_in_plain_sentences(verdict: tuple[hm.Verdict, Path]) -> None:
    sentences = verdict[0].summary()
    assert sentences[0].startswith("Take ")
    assert any("weaker than it could be" in sentence for sentence in sentences)
    assert any("same map as" in sentence for sentence in sentences)  # the default is one of them


def test_a_comparison_is_gone_on_with_and_gives_the_same(verdict: tuple[hm.Verdict, Path]) -> None:
    result, folder = verdict
    done = sorted((folder / "done").glob("confirm-*.json"))
    assert len(done) == 30
    for path in done[::2]:
        path.unlink()
    again = hm.compare(colours(), pictures(30), methods=METHODS, layers="1", out=folder, resume=True, progress=False)
    assert again.judgement == result.judgement
    with pytest.raises(hm.DataError, match="holds a comparison already"):
        hm.compare(colours(), pictures(30), methods=METHODS, layers="1", out=folder)
    with pytest.raises(hm.DataError, match=r"holds another comparison \(seed\)"):
        hm.compare(colours(), pictures(30), methods=METHODS, layers="1", out=folder, seed=1, resume=True)


def test_an_interrupted_comparison_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    whole = Scoring.of

    def interrupted(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return whole(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Scoring, "of", interrupted)
    options = {"methods": "hirescam", "layers": "1", "out": tmp_path / "c", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        hm.compare(colours(), pictures(8), **options)
    assert len(list((tmp_path / "c" / "done").glob("confirm-*.json"))) == 3
    monkeypatch.undo()
    hm.compare(colours(), pictures(8), **options, resume=True)


def test_too_few_and_no_images_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(hm.DataError, match="1 image can't tell methods apart"):
        hm.compare(colours(), pictures(1))
    with pytest.raises(hm.DataError, match="no images were given"):
        hm.compare(colours())
    with pytest.raises(hm.HookmapError, match="no method 'gradcan'"):
        hm.compare(colours(), pictures(8), methods="gradcan")
    with pytest.raises(hm.LayerError, match="no layer 'nope'"):
        hm.compare(colours(), pictures(8), layers="nope", out=tmp_path / "new" / "folder")
    assert not any(tmp_path.iterdir()), "nothing is left of a comparison that never began"
    (tmp_path / "own.txt").write_text("mine")
    with pytest.raises(hm.DataError, match="holds other files"):
        hm.compare(colours(), pictures(8), out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["own.txt"]


def test_images_are_split_without_overlap_and_most_confirm() -> None:
    for count in (8, 24, 100, 200, 500):
        split = Split.of(range(count), 15)
        every = [*split.screen, *split.halve, *split.confirm]
        assert sorted(every) == list(range(min(count, 196)))
        assert len(split.confirm) >= min(count, 196) / 2
    whole = Split.of(range(254), 15)
    assert [len(part) for part in (whole.screen, whole.halve, whole.confirm)] == [32, 64, 100]
    assert Split.of(range(50), 3).confirm == list(range(50))


def test_difull_and_class_similarity_are_what_they_must_be() -> None:
    lens, x = colours(), pictures(4)
    batches = [next(lens.engine.batches(x[i : i + 1], 1)) for i in range(4)]
    candidates = [Candidate(name, ("1",)) for name in ("hirescam", "layercam", "eigencam", "meanactivation")]
    goal = lens.engine.goal("predicted")
    for cell in range(4):
        leaks = leakage(lens.engine, batches, goal, candidates, Settings(), cell)
        # The gradient is 0 wherever the score doesn't come from.
        assert leaks[candidates[0]] == leaks[candidates[1]] == 0
        assert leaks[candidates[3]] > 0.5
    alike = class_similarity(batches[0], goal, 1, candidates, Settings())
    assert [alike[candidate] for candidate in candidates[2:]] == pytest.approx([1, 1])
    assert alike[candidates[0]] < 0


def test_the_mosaics_maps_are_those_of_the_cell() -> None:
    lens, x = colours(), pictures(4)
    batches = [next(lens.engine.batches(x[i : i + 1], 1)) for i in range(4)]
    candidate = Candidate("hirescam", ("1",))
    whole = mosaic_of(lens.engine, batches, 2, [candidate])
    assert whole.x.shape == (1, 3, 2 * SIDE, 2 * SIDE)
    mosaic = maps_of(whole, lens.engine.goal(0), [candidate], Settings())[candidate]
    alone = maps_of(batches[2], lens.engine.goal(0), [candidate], Settings())[candidate]
    torch.testing.assert_close(mosaic[SIDE:, :SIDE], alone)


def test_auto_takes_the_verdict_that_comes_with_the_embedded_default(
    cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing was decided here
    lens = hm.Lens("efficientnet_lite0", device="cpu")
    auto = lens.explain(cat, method="auto")[0]
    assert (auto.method.name, auto.layer) == ("layercam", "bn2")
    shipped = files("hookmap.attribution") / "verdicts" / f"{fingerprint(lens.model)}.json"
    told = json.loads(shipped.read_text())["provenance"]
    assert told["preprocessing"] == repr(lens.preprocessing)
    assert "photos" in told


def test_auto_takes_what_was_decided_for_these_weights(verdict: tuple[hm.Verdict, Path]) -> None:
    best, lens, x = verdict[0].best, colours(), pictures(1)
    assert best is not None
    auto = lens.explain(x, method="auto")[0]
    assert (auto.method.name, auto.layer) == (best.method, *best.layers)
    with torch.no_grad():
        lens.model[0].weight.mul_(2)  # other weights: nothing was decided for them
    assert lens.explain(x, method="auto")[0].layer == lens.explain(x)[0].layer


def test_what_is_pasted_in_is_found_by_the_method_that_knows() -> None:
    lens = colours()
    x = torch.zeros(2, 3, SIDE, SIDE)
    x[0, 0, 2:10, 2:10] = 1  # red, at the top left
    x[1, 1, 2:22, 2:22] = 1  # green all over
    scene, inset = (next(lens.engine.batches(x[i : i + 1], 1)) for i in range(2))
    candidates = [Candidate("hirescam", ("1",)), Candidate("gaussian", ("1",))]
    found = paste(lens.engine, scene, inset, candidates, Settings(), 3)
    assert found[candidates[0]] > 0.99
    assert found[candidates[1]] == pytest.approx(0.25, abs=0.01)
    # A small red copy doesn't outweigh the green, so nothing can be said.
    assert paste(lens.engine, inset, scene, candidates, Settings(), 0) == {}


def test_one_process_at_a_time_compares_into_a_folder(tmp_path: Path) -> None:
    with Folder(tmp_path).locked(), pytest.raises(hm.DataError, match="another process is writing"):
        hm.compare(colours(), pictures(8), out=tmp_path)
