"""Which of the hosts that train together this one is, and what TensorFlow wants to be told of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.stage.errors import InputError

INDEX = "JOB_COMPLETION_INDEX"  # Kubernetes's own name, in every pod of an indexed Job
PLACEHOLDER = "{index}"
PORT = 2222


@dataclass(frozen=True)
class Place:
    """One host among those that train together.

    Attributes:
        index: Its position; 0 is the chief.
        names: Every host's name, as the others can resolve it, the chief's first.
        port: Where TensorFlow listens on each of them; on the port after it the chief offers its files.
    """

    index: int
    names: tuple[str, ...]
    port: int

    @property
    def is_chief(self) -> bool:
        """Whether this host runs the flow."""
        return self.index == 0

    @property
    def files_port(self) -> int:
        """Where the chief offers its files."""
        return self.port + 1

    @property
    def chief_url(self) -> str:
        """The address of the chief's files."""
        return f"http://{self.names[0]}:{self.files_port}"

    @property
    def tf_config(self) -> str:
        """The value of TF_CONFIG."""
        cluster = {"worker": [f"{name}:{self.port}" for name in self.names]}
        return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": self.index}})


def read_place(count: int, names: str, port: int, environment: Mapping[str, str]) -> Place:
    """Return the place of this host, whose index the environment says where there are several.

    Raises:
        InputError: The index is missing or too large, or the names would all be the same.
    """
    if count == 1:
        return Place(0, ("localhost",), port)
    if PLACEHOLDER not in names:
        raise InputError(f"--names {names!r}: must hold {PLACEHOLDER}, as in retrain-x7k2p-{PLACEHOLDER}.hosts")
    index = environment.get(INDEX, "")
    if not (index.isascii() and index.isdigit() and int(index) < count):
        raise InputError(f"{INDEX} = {index!r}: must be a whole number from 0 to {count - 1}, since --count is {count}")
    return Place(int(index), tuple(names.replace(PLACEHOLDER, str(number)) for number in range(count)), port)
