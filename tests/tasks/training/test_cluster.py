import json
from typing import Any

import pytest
import tensorflow as tf

from tasks.stage.errors import InputError
from tasks.training.cluster import Cluster, Host, read_cluster

WORKERS = ["10.0.0.1:2222", "10.0.0.2:2222", "10.0.0.3:2222"]


def config(cluster: Any, kind: str = "worker", index: Any = 0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_the_first_worker_is_the_chief_where_there_is_no_other() -> None:
    clusters = [read_cluster(config({"worker": WORKERS}, index=index)) for index in range(3)]
    assert [cluster.is_chief for cluster in clusters] == [True, False, False]
    assert clusters[1].hosts[1] == Host("worker", 1, "10.0.0.2:2222")


def test_a_chief_of_its_own_comes_before_the_workers() -> None:
    jobs = {"worker": WORKERS[1:], "chief": WORKERS[:1]}
    assert read_cluster(config(jobs, "chief")).is_chief
    assert read_cluster(config(jobs, "worker", 0)).own == 1


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}, config({"worker": WORKERS[:1]})])
def test_a_single_process_is_no_cluster(environment: dict[str, str]) -> None:
    cluster = read_cluster(environment)
    assert cluster.hosts == ()
    assert cluster.is_chief


@pytest.mark.parametrize(
    "environment",
    [
        {"TF_CONFIG": "{"},
        {"TF_CONFIG": "[]"},
        {"TF_CONFIG": "null"},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:2"]}}'},
        config({"worker": WORKERS}, index=3),
        config({"worker": WORKERS}, index="first"),
        config({"worker": WORKERS}, "evaluator"),
        config({"worker": 7}),
        config(["10.0.0.1:2222"]),
        config({"worker": ["10.0.0.1", "10.0.0.2"]}),
        config({"worker": "10.0.0.1:2222"}),
    ],
)
def test_a_cluster_that_makes_no_sense_is_refused_in_one_sentence(environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"TF_CONFIG = .*: it must name a cluster's chief and workers as host:port"):
        read_cluster(environment)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("/job:worker/replica:0/task:2 is gone", "worker 2 (10.0.0.3:2222) stopped answering"),
        ("/job:worker/task:1 of /job:worker/replica:0/task:0", "worker 1 (10.0.0.2:2222) stopped answering"),
        ("recvmsg:\nreset by peer", "the connection to the other hosts broke (recvmsg: reset by peer)"),
    ],
)
def test_an_error_of_tensorflow_names_the_host_that_is_gone(error: str, sentence: str) -> None:
    hosts = tuple(Host("worker", index, address) for index, address in enumerate(WORKERS))
    assert Cluster(hosts, own=0).lost(RuntimeError(error)) == sentence


@pytest.mark.parametrize("hosts", [(), (Host("worker", 0, WORKERS[0]), Host("worker", 1, WORKERS[1]))])
def test_a_memory_that_is_not_enough_is_no_lost_host(hosts: tuple[Host, ...]) -> None:
    sentence = r"a device's memory is not enough \(.*OOM.*\); a smaller batch_size"
    with pytest.raises(InputError, match=sentence), Cluster(hosts).naming_lost_hosts():
        tf.zeros((1 << 24, 1 << 24))


def test_a_gpu_without_room_is_no_lost_host() -> None:
    full = tf.errors.InternalError(None, None, "Failed copying input tensor: Dst tensor is not initialized.")
    with pytest.raises(InputError, match="a device's memory is not enough"), Cluster().naming_lost_hosts():
        raise full
