"""A proxy of the person's shell is for the world outside, never for the servers of this machine."""

from collections.abc import MutableMapping

LOOPBACK = ("localhost", "127.0.0.1", "::1")
EXCEPTIONS = ("NO_PROXY", "no_proxy")  # some programs read the one, some the other, some the one before the other


def reach_loopback_directly(environment: MutableMapping[str, str]) -> None:
    """Except loopback from the proxies that an environment names, for this process and all that it starts.

    The proxies stay, and so does what is excepted already. An environment without a proxy is left as it is.
    """
    if not any(_is_proxy(name) and value for name, value in environment.items()):
        return  # macOS takes any such variable for a reason not to look at its own settings
    given = {name: environment.get(name, "") for name in EXCEPTIONS}
    for name in EXCEPTIONS:
        text = given[name] or next(filter(None, given.values()), "")
        hosts = [host for entry in text.split(",") if (host := entry.strip())]
        if "*" not in hosts:
            environment[name] = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])


def _is_proxy(name: str) -> bool:
    return name.lower().endswith("_proxy") and name not in EXCEPTIONS
