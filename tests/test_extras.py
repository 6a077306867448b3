"""What each extra is for: with it, its use works and nothing warns; without it, a sentence says what to install.

In an environment with one extra alone this says whether the extra suffices, in one with all of them whether the uses
are still right.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from pictures import PHOTOS, REPOSITORY

pytestmark = pytest.mark.extras

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PHOTO = str(PHOTOS / "cat.jpg")
USES: dict[str, Callable[[], None]] = {}


def use(what: Callable[[], None]) -> Callable[[], None]:
    """A use of the extra that has this name; it runs by itself, in an empty folder."""
    USES[what.__name__] = what
    return what


def command(*arguments: str) -> None:
    from hookmap import cli

    sys.argv = ["hookmap", *arguments]
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code:
            raise


def is_made(path: str) -> None:
    assert Path(path).stat().st_size > 1000


@use
def open_clip() -> None:
    import open_clip

    import hookmap as hm

    vision = {"image_size": 48, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    model = open_clip.CLIP(24, vision, text)
    lens = hm.Lens(model.eval(), labels=["a cat", "a cup of coffee"], preprocessing=hm.Preprocessing(size=(48, 48)))
    assert lens.explain(PHOTO, "text:a cat")[0].raw.any()


@use
def transformers() -> None:
    with suppress(ModuleNotFoundError):
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

        small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        ViTForImageClassification(ViTConfig(image_size=64, **small)).save_pretrained("vit")
        ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained("vit")
    command("explain", PHOTO, "--model", "hf/vit", "-o", "cat.png")
    is_made("cat.png")


@use
def smp() -> None:
    import segmentation_models_pytorch

    import hookmap as hm

    model = segmentation_models_pytorch.Unet("resnet18", encoder_weights=None, classes=3).eval()
    size = hm.Preprocessing(size=(96, 128), resize=(96, 128))
    assert hm.Lens(model, preprocessing=size).explain(PHOTO, hm.Point(200, 150))[0].raw.any()


@use
def rfdetr() -> None:
    small = {"resolution": 96, "positional_encoding_size": 6, "num_queries": 20, "num_select": 15, "group_detr": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library says when it is imported, and of weights that aren't trained
        from rfdetr import RFDETRNano

        detector = RFDETRNano(pretrain_weights=None, device="cpu", **small)

    import hookmap as hm
    from hookmap.models.rfdetr import RFDETRDetector

    assert hm.Lens(RFDETRDetector(detector, least=0)).explain(PHOTO, "box:0")[0].raw.shape == (6, 6)


@use
def ultralytics() -> None:
    import hookmap as hm
    from hookmap import models
    from hookmap.models.ultralytics.adapters import Detector

    network = models.load("yolo11n", pretrained=False).model
    assert len(hm.Lens(Detector(network, least=0, most=2)).explain(PHOTO)) == 2


@use
def onnx() -> None:
    command("export", "net.onnx")
    command("explain", PHOTO, "--model", "net.onnx", "-o", "cat.png")
    is_made("net.onnx")
    is_made("cat.png")


@use
def superpixels() -> None:
    for method in ("lime", "kernelshap", "xrai"):
        command("explain", PHOTO, "--method", method, "--budget", "40", "-o", f"{method}.png")
        is_made(f"{method}.png")


@use
def dataset() -> None:
    command("run", str(PHOTOS), "--out", "run")
    command("report", "run")
    is_made("run/report.html")


@use
def ray() -> None:
    command("run", str(PHOTOS), "--out", "run", "--engine", "ray")
    is_made("run/index.parquet/part-000000.parquet")


@use
def fiftyone() -> None:
    import hookmap as hm

    samples = hm.run([PHOTO], out="run").to_fiftyone("hookmap extras")
    try:
        assert samples.first().prediction.label == "tiger cat"
    finally:
        samples.delete()


@use
def video() -> None:
    from PIL import Image

    with Image.open(PHOTO) as photo:
        frames = [photo.convert("RGB").rotate(degrees) for degrees in (0, 10, 20)]
    frames[0].save("clip.gif", save_all=True, append_images=frames[1:], duration=100)
    command("explain", "clip.gif", "-o", "film.mp4")
    is_made("film.mp4")


@use
def supervision() -> None:
    import torchvision

    import hookmap as hm

    # What nothing here needs; who wants it installs it.
    warnings.filterwarnings("ignore", "OpenCV .* is not installed", UserWarning)
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3, score_thresh=0.0, detections_per_img=3
    )
    lens = hm.Lens(model.eval(), labels=["nothing", "cat", "cup"])
    (found,) = lens.predict(PHOTO)
    detections = hm.to_supervision(found)
    assert len(lens.explain(PHOTO, detections)) == len(detections) == 3


@use
def app() -> None:
    from urllib.request import urlopen

    serve = [sys.executable, "-m", "hookmap", "serve", "--no-open", "--port", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()
            link = re.search(r"http://\S+", said)
            if link is None:
                raise SystemExit(process.wait())
            assert b"<title>hookmap" in urlopen(link[0]).read()
        finally:
            process.terminate()


@use
def notebook() -> None:
    import hookmap as hm

    shown = hm.Lens().explore(PHOTO)
    assert "application/vnd.jupyter.widget-view+json" in shown._repr_mimebundle_()[0]


@use
def lightning() -> None:
    import torch
    from torch import nn

    import hookmap as hm

    LightningProbe = hm.LightningProbe
    from lightning import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        def training_step(self, batch, _):
            return self.net(batch).square().sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    images = torch.randn(2, 3, 32, 32)
    probe = LightningProbe(hm.Probe(images, "log", every=1), "net")
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_steps=2, accelerator="cpu", callbacks=[probe], **options)
    trainer.fit(Module(), torch.utils.data.DataLoader(images))
    is_made("log/animation.webp")


@use
def wandb() -> None:
    import hookmap as hm

    with suppress(ModuleNotFoundError):
        import wandb

        wandb.init(mode="offline", settings=wandb.Settings(silent=True))
    probed(hm.WandB())
    assert list(Path("wandb").rglob("*.gif"))


@use
def mlflow() -> None:
    import hookmap as hm

    with suppress(ModuleNotFoundError):
        import mlflow

        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        mlflow.set_tracking_uri(Path("store").absolute().as_uri())
        mlflow.start_run()
    probed(hm.MLflow())
    assert list(Path("store").rglob("animation.webp"))


def probed(log: object) -> None:
    import hookmap as hm

    lens = hm.Lens()
    with hm.Probe([PHOTO], log, preprocessing=lens.preprocessing) as probe:
        probe.look(lens.model, 0)
        probe.look(lens.model, 1)


OF_CONTRIBUTORS = {"docs", "test"}
MADE_BY_THE_LIBRARY = {"open_clip", "smp", "rfdetr"}
"""Who holds such a model has the library: hookmap isn't asked without it."""


def parts(extra: str) -> tuple[list[str], list[str]]:
    """The distributions that the extra names, and the other extras that it includes."""
    found = [re.match(r"([\w-]+)(?:\[([\w,]+)\])?", requirement).groups() for requirement in EXTRAS[extra]]
    return [name for name, more in found if not more], [one for _, more in found if more for one in more.split(",")]


def there(extra: str) -> bool:
    """Whether everything that the extra names is installed."""
    own, others = parts(extra)
    return all(any(metadata.distributions(name=name)) for name in own) and all(there(other) for other in others)


def test_every_extra_has_a_use() -> None:
    assert set(USES) == set(EXTRAS) - OF_CONTRIBUTORS


@pytest.mark.parametrize("extra", sorted(USES))
def test_its_use_works_or_a_sentence_names_it(extra: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, __file__, extra], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    if there(extra):
        assert (done.returncode, "Warning" in done.stderr) == (0, False), done.stderr
    elif extra not in MADE_BY_THE_LIBRARY:
        named = re.search(r"pip install 'hookmap\[(\w+)\]'", done.stderr)
        assert done.returncode != 0
        assert named is not None, done.stderr
        assert named[1] in [extra, *parts(extra)[1]]


if __name__ == "__main__":
    USES[sys.argv[1]]()
