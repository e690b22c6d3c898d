"""The parameters of when a run trains at all."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.section import Positive, Section


class RetrainParams(Section):
    """Whether a run trains on data that changed: tasks/registry/need.py decides, once they are divided.

    Attributes:
        when: `changed` for whenever anything did; `needed` for when one of the following says so, or the champion is
            significantly less often right on what came than on its own test images, or was made by other parameters.
        new_images: That many images came that the champion does not know; null for never.
        days: The champion was made so many days ago; null for never.
    """

    when: Literal["changed", "needed"] = "changed"
    new_images: Positive | None = 100
    days: Annotated[float, Field(gt=0)] | None = 30
