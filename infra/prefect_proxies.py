"""Proxies of a shell that would end Prefect: its client, httpx, fails on one that it cannot use, needed or not.

They are set aside for Prefect's processes, and given back to what these start: a download or git may have use for them.
"""

from collections.abc import Mapping
from functools import cache

from tasks.stage.proxies import EXCEPTIONS

PROXIES = ("http_proxy", "https_proxy", "all_proxy")  # that httpx looks at, in small letters or large
ASIDE = "_SET_ASIDE"  # after the name of the variable whose value it keeps


def set_aside(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set over an environment so that httpx can be used in it; none where it can already."""
    proxies = {name: value for name, value in environment.items() if value and name.lower() in PROXIES}
    usable = {name: "" for name, value in proxies.items() if not _is_usable(value)}
    for name in EXCEPTIONS:
        entries = [entry.strip() for entry in environment.get(name, "").split(",") if entry.strip()]
        kept = [entry for entry in entries if _is_understood(entry)]
        if kept != entries:
            usable[name] = ",".join(kept)
    return usable | {f"{name}{ASIDE}": environment[name] for name in usable}


def given_back(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with what was set aside in its place again."""
    kept = {name.removesuffix(ASIDE): value for name, value in environment.items() if name.endswith(ASIDE)}
    return {name: value for name, value in environment.items() if not name.endswith(ASIDE)} | kept


@cache
def _is_usable(address: str) -> bool:
    """Return whether httpx takes a proxy: it knows http, https, and SOCKS where the package socksio is installed."""
    import httpx  # noqa: PLC0415 - a quarter of a second that a shell without a proxy need not wait

    try:
        # Nothing is sent; the certificates, which may be wrong too, need not be read.
        httpx.HTTPTransport(proxy=address if "://" in address else f"http://{address}", verify=False)
    except (ImportError, ValueError, httpx.InvalidURL):
        return False
    return True


@cache
def _is_understood(host: str) -> bool:
    """Return whether httpx takes a host that is excepted from proxies: it fails on networks of IPv6, for one."""
    import httpx  # noqa: PLC0415

    for form in (f"all://*{host}", f"all://[{host}]"):
        try:
            httpx.URL(form)
        except httpx.InvalidURL:
            continue
        return True
    return False
