"""What `make image` hands to buildah. People run the build itself; infra/docker/README.md says what came of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.docker.build_image import CERTIFICATES, debian_mirrors, pip_configuration
from tests.fixtures.dvc_project import REPOSITORY


def test_pip_settings_travel_and_paths_of_this_machine_do_not() -> None:
    listed = "\n".join(
        [
            ":env:.timeout='180'",
            "global.cert='/etc/ssl/certs/here.crt'",
            "global.constraint='/etc/constraints.txt'",
            "global.extra-index-url='file:///opt/simple https://second.example/simple'",
            "global.find-links='/opt/wheels'",
            "global.index-url='https://mirror.example/simple'",
            "global.timeout='15'",
        ]
    )

    configuration, certificates = pip_configuration(listed)

    assert certificates == Path("/etc/ssl/certs/here.crt")
    assert configuration.splitlines() == [
        "[global]",
        "timeout = 180",  # the environment has the last word, as in pip
        "index-url = https://mirror.example/simple",
        "extra-index-url = https://second.example/simple",
        f"cert = {CERTIFICATES}",
    ]


def test_pip_reads_the_file_that_is_made_of_its_own_answer(tmp_path: Path) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text(pip_configuration("global.index-url='https://mirror.example/simple'")[0])
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": str(configuration)}

    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert "global.index-url='https://mirror.example/simple'" in said.stdout.splitlines()


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs Debian's apt-get")
def test_mirrors_are_those_of_this_machines_apt_and_of_the_suite_alone() -> None:
    for source in debian_mirrors("bookworm"):
        kind, _address, suite, _component = source.split()
        assert kind == "deb"
        assert suite.startswith("bookworm")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--lock", "requirements-tpu.lock"], "no such lock: requirements-tpu.lock"),
        ([], "buildah is not installed; on Debian and Ubuntu: apt-get install buildah"),
    ],
)
def test_what_is_missing_is_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.docker.build_image", *arguments]

    done = subprocess.run(
        command, cwd=REPOSITORY, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr.startswith(f"infra.docker.build_image: {sentence}")
    assert done.stderr.count("\n") == 1
