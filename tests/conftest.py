"""Real photos and networks that many tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hookmap as hm

REPOSITORY = Path(__file__).resolve().parents[1]
PHOTOS = REPOSITORY / "examples" / "photos"

# Networks here are small: threads that wait for busy cores cost more (a hundredfold) than they bring.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cat() -> Path:
    return PHOTOS / "cat.jpg"


@pytest.fixture(scope="session")
def coffee() -> Path:
    return PHOTOS / "coffee.jpg"


@pytest.fixture(scope="session")
def lens() -> hm.Lens:
    """The embedded default network, really trained."""
    return hm.Lens("efficientnet_lite0", device="cpu")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
