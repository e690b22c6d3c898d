"""Who moves a channel, as its history names them; never a credential."""

import getpass
import os
import socket
from collections.abc import Mapping

# In this order: what a person chose, then the names that GitHub's and GitLab's runners give.
VARIABLES = ("RETRAIN_ACTOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN")
LONGEST = 100


def current_actor(environment: Mapping[str, str] = os.environ) -> str:
    """Return the first of VARIABLES that is set, or else `user@host`; printable, at most 100 characters."""
    chosen = next((environment[name] for name in VARIABLES if environment.get(name)), None)
    text = f"{_user()}@{socket.gethostname()}" if chosen is None else chosen
    return "".join(character for character in text if character.isprintable())[:LONGEST]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return str(os.getuid())
