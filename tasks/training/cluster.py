"""The hosts that train together: who they are, what they agree on, and what it means when one of them is gone."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy as multi_worker

from tasks.stage.errors import InputError, ResumableError

VARIABLE = "TF_CONFIG"
TASK = re.compile(r"/job:(chief|worker)(?:/replica:0)?/task:(\d+)")
ADDRESS = re.compile(r"\S+:\d{1,5}")
FULL_GPU = "Dst tensor is not initialized"  # what TensorFlow says of a copy to a GPU that has no room
PIECE = 4 << 20  # 32-bit words a broadcast moves at once


@dataclass(frozen=True)
class Host:
    """A process of the cluster: its job (`chief` or `worker`), its index there, its address as `host:port`."""

    job: str
    index: int
    address: str


@dataclass(frozen=True)
class Cluster:
    """The processes that train together, in TensorFlow's order; a single one has no hosts.

    Attributes:
        hosts: The chief first.
        own: Position of this process among them.
    """

    hosts: tuple[Host, ...] = ()
    own: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the cluster makes."""
        return self.own == 0

    def lost(self, error: Exception) -> str:
        """Return a sentence that names the hosts that TensorFlow's error is about."""
        named = {(job, int(index)) for job, index in TASK.findall(str(error))}
        gone = [host for host in self.hosts if (host.job, host.index) in named and host != self.hosts[self.own]]
        if not gone:
            return f"the connection to the other hosts broke ({' '.join(str(error).split())[:200]})"
        names = ", ".join(f"{host.job} {host.index} ({host.address})" for host in gone)
        return f"{names} stopped answering"

    @contextlib.contextmanager
    def naming_lost_hosts(self) -> Iterator[None]:
        """Turn TensorFlow's error about a host that is gone into a sentence that names it.

        Raises:
            ResumableError: A host is gone; what was saved stands.
            InputError: A device's memory is not enough.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if isinstance(error, tf.errors.ResourceExhaustedError) or FULL_GPU in error.message:
                reason = " ".join(error.message.split())[:200]
                raise InputError(
                    f"a device's memory is not enough ({reason}); a smaller batch_size in the recipe, or a smaller "
                    "train.memory_megabytes, needs less"
                ) from error
            if not self.hosts:
                raise
            raise ResumableError(
                f"{self.lost(error)}; this host stops too. Run it again, on the same or another number of "
                "hosts, to go on from the last checkpoint"
            ) from error


def read_cluster(environment: Mapping[str, str] = os.environ) -> Cluster:
    """Return the cluster that TF_CONFIG describes; a missing one, or one with a single process, is no cluster.

    Raises:
        InputError: TF_CONFIG is not of the form {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker",
            "index": 0}}, or its task is not in its cluster.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return Cluster()
    try:
        value = json.loads(text)
        jobs, task = value["cluster"], (str(value["task"]["type"]), int(value["task"]["index"]))
        hosts = tuple(Host(job, i, str(a)) for job in ("chief", "worker") for i, a in enumerate(jobs.get(job, ())))
        if not all(ADDRESS.fullmatch(host.address) for host in hosts):
            raise ValueError("not host:port")
        own = next(position for position, host in enumerate(hosts) if (host.job, host.index) == task)
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(
            f"{VARIABLE} = {text!r}: it must name a cluster's chief and workers as host:port and this process's task "
            'among them, as {"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from error
    return Cluster(hosts, own) if len(hosts) > 1 else Cluster()


class LogicalDeviceStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """MultiWorkerMirroredStrategy over `count` logical CPUs of each host; TensorFlow itself would take the first."""

    def __init__(self, count: int) -> None:
        extended = _LogicalDeviceExtended(self, count)
        # Not super(): it would make an extended of its own, which takes one CPU a host.
        tf.distribute.Strategy.__init__(self, extended)


class _LogicalDeviceExtended(multi_worker.CollectiveAllReduceExtended):
    def __init__(self, strategy: tf.distribute.Strategy, count: int) -> None:
        self._count = count
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        options = tf.distribute.experimental.CommunicationOptions()
        super().__init__(strategy, cluster_resolver=resolver, communication_options=options)

    # TensorFlow's private hook for "which devices has this host"; tests/integration/test_train_hosts.py guards it.
    def _initialize_local_devices(self, _resolver: Any, worker_device: str) -> tuple[tuple[str, ...], str]:
        return tuple(f"{worker_device}/device:CPU:{index}" for index in range(self._count)), "CPU"


class Agreement:
    """What the processes of a cluster tell one another between launches; in a single process, what it tells itself."""

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster) -> None:
        self._strategy, self.cluster = strategy, cluster

    def after_launch(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Return whether any host asks to stop, and the chief's duration: so all stop at one step, at one pace."""
        if not self.cluster.hosts:
            return stop, seconds
        microseconds = round(seconds * 1e6) if self.cluster.is_chief else 0
        asked, taken = self._sum(np.array([stop, microseconds], np.int32))
        return bool(asked), taken / 1e6

    def broadcast(self, data: bytes) -> bytes:
        """Return the chief's bytes on every host; what the others give is not looked at."""
        if not self.cluster.hosts:
            return data
        own = data if self.cluster.is_chief else b""
        size = int(self._sum(np.array([len(own)], np.int32))[0])
        words = np.zeros(-(-size // 4), np.int32)
        words.view(np.uint8)[: len(own)] = np.frombuffer(own, np.uint8)
        pieces = [self._sum(words[start : start + PIECE]) for start in range(0, len(words), PIECE)]
        return np.concatenate([words[:0], *pieces]).tobytes()[:size]

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of each host's int32 values."""
        with self.cluster.naming_lost_hosts():
            return np.asarray(self._sum_on_devices(tf.constant(values)))

    @tf.function(autograph=False, reduce_retracing=True)
    def _sum_on_devices(self, values: tf.Tensor) -> tf.Tensor:
        def once_a_host() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % len(self._strategy.extended.worker_devices) == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, values, tf.zeros_like(values)))

        return self._strategy.experimental_local_results(self._strategy.run(once_a_host))[0]
