"""Build the worker's image without a Docker daemon: `python -m infra.docker.build_image [--lock LOCK] [--tag TAG]`.

It hands infra/docker/Dockerfile to buildah as `docker build` would take it, and adds what a machine behind a mirror
needs: pip's configuration and certificates travel as build secrets, which no layer keeps. Where the base image cannot
be pulled, one with Debian's own Python takes its name, made by mmdebstrap from the mirror that apt uses here.
"""

import argparse
import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tasks.stage.errors import InputError, run_command

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
CERTIFICATES = Path("/run/secrets/certificates")  # where the Dockerfile's RUN finds the secret
CARRIED = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
STAND_IN_PACKAGES = "ca-certificates,netbase,python-is-python3,python3-venv,tzdata"
STAND_IN_PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"


def run(*command: str | Path) -> str:
    """Run a command whose errors go to stderr as they are, and return what it printed.

    Raises:
        InputError: It is not installed, or it failed.
    """
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    except FileNotFoundError:
        raise InputError(f"{command[0]} is not installed; on Debian and Ubuntu: apt-get install {command[0]}") from None
    except subprocess.CalledProcessError as error:
        raise InputError(f"{' '.join(map(str, command[:2]))} ended with status {error.returncode}") from None
    return done.stdout.strip()


def base_image() -> str:
    """Return the name of the image that the Dockerfile starts from."""
    version = re.search(r"^ARG PYTHON=(\S+)$", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None, "the Dockerfile names no Python"  # noqa: S101 - a test reads the same line
    return f"python:{version[1]}"


def have_base_image(image: str) -> None:
    """See to it that the base image is on this machine: it is there, or it is pulled, or a stand-in is made."""
    for attempt in (("inspect", "--type", "image"), ("pull", "--quiet")):
        if subprocess.run(["buildah", *attempt, image], capture_output=True, check=False).returncode == 0:
            return
    print(f"{image} cannot be pulled: making one with Debian's own Python under its name", flush=True)
    make_stand_in(image)


def make_stand_in(image: str) -> None:
    """Make an image of this name from Debian's packages; the patch version of its Python is Debian's.

    Raises:
        InputError: A tool is missing, a package cannot be had, or Debian's Python is another minor version.
    """
    suite, wanted = image.rpartition("-")[2], image.removeprefix("python:").split(".")[:2]
    with tempfile.TemporaryDirectory(prefix="retrain-base-") as folder:
        archive = Path(folder) / "root.tar"
        run("mmdebstrap", "--variant=minbase", f"--include={STAND_IN_PACKAGES}", suite, archive, *debian_mirrors(suite))
        container = run("buildah", "from", "scratch")
        try:
            run("buildah", "add", "--quiet", container, archive, "/")
            run("buildah", "config", "--env", f"PATH={STAND_IN_PATH}", "--env", "LANG=C.UTF-8", container)
            version = run("buildah", "run", "--isolation", "chroot", container, "--", "python", "--version").split()[1]
            if version.split(".")[:2] != wanted:
                raise InputError(f"Debian {suite} has Python {version}, and the Dockerfile asks for {image}")
            description = f"stand-in for {image}: Debian's own Python {version}"
            run("buildah", "config", "--label", f"org.opencontainers.image.description={description}", container)
            run("buildah", "commit", "--quiet", "--format", "docker", container, f"localhost/{image}")
        finally:
            run("buildah", "rm", container)
    print(description, flush=True)


def debian_mirrors(suite: str) -> list[str]:
    """Return apt's sources of this Debian suite on this machine; none where it runs another system."""
    wanted = ("Created-By: Packages", "Origin: Debian")  # not those of third parties, whose suites have equal names
    sources = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", *wanted).splitlines()
    return [f"deb {source}" for source in sorted(set(sources)) if source.split()[1].partition("-")[0] == suite]


def pip_configuration(listed: str) -> tuple[str, Path | None]:
    """Return pip's settings that hold inside a build too, as a file's text, and this machine's certificates.

    Args:
        listed: What `pip config list` says. Paths of this machine are left out: the build does not see them.
    """
    settings: dict[str, str] = {}
    for line in sorted(
        listed.splitlines(), key=lambda line: line.startswith(":env:")
    ):  # the environment has the last word
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    carried = {name: settings[name] for name in CARRIED if name in settings}
    for name in ("index-url", "extra-index-url"):
        addresses = [address for address in carried.pop(name, "").split() if not address.startswith("file:")]
        if addresses:
            carried[name] = " ".join(addresses)
    certificates = Path(settings["cert"]) if "cert" in settings else None
    if certificates is not None:
        carried["cert"] = str(CERTIFICATES)
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in carried.items()), certificates


def build(lock: str, tag: str) -> None:
    """Build the image from this workspace's files, with the commit as its revision.

    Raises:
        InputError: The lock is not there, or a step failed; what it printed stands above.
    """
    if not (ROOT / lock).is_file():
        raise InputError(f"no such lock: {lock}; there are requirements.lock and requirements-gpu.lock")
    run("buildah", "--version")
    have_base_image(base_image())
    configuration, certificates = pip_configuration(run(sys.executable, "-m", "pip", "config", "list"))
    revision = run("git", "-C", ROOT, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    with tempfile.TemporaryDirectory(prefix="retrain-build-") as folder:
        secret = Path(folder) / "pip.conf"
        secret.write_text(configuration, encoding="utf-8")
        secrets = [f"--secret=id=pip,src={secret}"]
        if certificates is not None:
            secrets.append(f"--secret=id=certificates,src={certificates}")
        # chroot needs no container runtime and no cgroups; Docker's format keeps SHELL, which OCI's does not know.
        command = ["buildah", "build", "--isolation=chroot", "--format=docker", "--layers", "--pull=false", *secrets]
        command += [f"--build-arg=LOCK={lock}", f"--build-arg=REVISION={revision}", f"--tag={tag}"]
        done = subprocess.run([*command, "--file", FOLDER / "Dockerfile", ROOT], check=False)
    if done.returncode != 0:
        raise InputError(f"the build of {tag} stopped with status {done.returncode}; why stands above")
    print(f"{tag} is made of {revision}", flush=True)


def main() -> None:
    """Read the command's arguments and build."""
    parser = argparse.ArgumentParser(prog="python -m infra.docker.build_image", description=__doc__.partition("\n")[0])
    parser.add_argument("--lock", default="requirements.lock", help="requirements-gpu.lock brings CUDA")
    parser.add_argument("--tag", help="default: retrain:cpu, or retrain:gpu for the GPU lock")
    arguments = parser.parse_args()
    tag = arguments.tag or ("retrain:gpu" if "gpu" in arguments.lock else "retrain:cpu")
    run_command("infra.docker.build_image", lambda: build(arguments.lock, tag))


if __name__ == "__main__":
    main()
