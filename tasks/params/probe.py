"""A recipe without training steps: frozen features of a pretrained network, and the best linear head on them."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from tasks.params.recipe import ModelParams, Recipe
from tasks.params.section import Positive, Section, Share

Penalty = Annotated[float, Field(gt=0)]


class ProbeRecipe(Section):
    """A linear probe (Alain and Bengio 2016, arXiv 1610.01644): logistic regression on frozen, standardised features.

    Attributes:
        method: `probe`; a recipe without it takes training steps.
        model: Its base begins from weights, which stay as they are; its head is `linear` with a bias.
        penalties: Each is tried as λ in Σ log loss + λ/2 · Σ weight²; kept is the one whose validation loss is lowest.
        balance: How far images of rare classes count more in that first sum, as in a recipe's loss.
        max_iterations: Of the solver, for each penalty.
    """

    method: Literal["probe"]
    model: ModelParams
    penalties: Annotated[tuple[Penalty, ...], Field(min_length=1)]
    balance: Share = 0.0
    max_iterations: Positive = 1000

    @model_validator(mode="after")
    def _is_linear_on_pretrained_features(self) -> "ProbeRecipe":
        if self.model.weights == "none":
            raise ValueError("model.weights = none: a probe needs features that were trained")
        if self.model.head != "linear" or not self.model.bias:
            raise ValueError("the head of a probe is what its solver finds: model.head = linear, model.bias = true")
        return self


def _method(values: Any) -> str:
    """Return which kind of recipe values are."""
    method = values.get("method") if isinstance(values, dict) else getattr(values, "method", None)
    return "steps" if method is None else "probe"


RECIPE_KINDS = {"steps": Recipe, "probe": ProbeRecipe}
AnyRecipe = Annotated[
    Annotated[Recipe, Tag("steps")] | Annotated[ProbeRecipe, Tag("probe")],
    Discriminator(_method),
]
