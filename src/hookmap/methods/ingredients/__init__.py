"""What methods may ask for: each ingredient is a provider that says what it is and takes itself."""

# In the order in which lists name them: the simple before the dear.
# isort: off
from hookmap.methods.ingredients import recorded
from hookmap.methods.ingredients import given
from hookmap.methods.ingredients import copies
from hookmap.methods.ingredients import heads
from hookmap.methods.ingredients import attention
from hookmap.methods.ingredients import relevance
from hookmap.methods.ingredients import full_gradients
from hookmap.methods.ingredients import noisy_gradients
from hookmap.methods.ingredients import pixel_gradients

# isort: on
from hookmap.methods.ingredients.ingredient import (
    INGREDIENTS,
    ImageIngredient,
    Ingredient,
    Pass,
    Records,
    Request,
    ingredient,
)

__all__ = [
    "INGREDIENTS",
    "ImageIngredient",
    "Ingredient",
    "Pass",
    "Records",
    "Request",
    "attention",
    "copies",
    "full_gradients",
    "given",
    "heads",
    "ingredient",
    "noisy_gradients",
    "pixel_gradients",
    "recorded",
    "relevance",
]
