"""The main job with a base install alone: what every platform, version and wheel has to do, without extras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hookmap as hm

PHOTO = Path(__file__).resolve().parent.parent / "examples" / "photos" / "cat.jpg"


def hookmap(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hookmap", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_a_photo_is_explained_without_a_warning(tmp_path: Path) -> None:
    done = hookmap("explain", str(PHOTO), "-o", "cat.png", cwd=tmp_path)
    assert (done.returncode, "Warning" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "cat.png").stat().st_size > 10_000


def test_feature_maps_are_drawn(tmp_path: Path) -> None:
    done = hookmap("features", str(PHOTO), "-o", "maps", "--layers", "blocks.2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "maps" / "overview.png").exists()


def test_in_python(tmp_path: Path) -> None:
    lens = hm.Lens()
    (predictions,) = lens.predict(PHOTO, top=1)
    assert predictions[0].label == "tiger cat"
    explanation = lens.explain(PHOTO, method=["hirescam", "layercam"], layer="blocks.5")
    loaded = hm.load(explanation.save(tmp_path / "maps.npz"))
    assert [h.raw.equal(other.raw) for h, other in zip(loaded, explanation, strict=True)] == [True, True]
