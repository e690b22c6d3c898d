"""Whether a stage that DVC would leave alone reads something from outside that DVC does not see: a renewed archive."""

from flows.command import OnLine

STAGE = "download"
UNKNOWN = "download.sha256 is null, and whether another archive stands at download.url by now cannot be told"
RENEWED = "another archive stands at download.url by now, and download.sha256 is null: it is fetched"


def has_renewed_source(stage: str, say: OnLine) -> bool:
    """Return whether the stage must run although nothing that DVC knows has changed.

    Args:
        stage: Its name.
        say: Gets a line where that cannot be told: nothing was noted, the server gives no mark, or is away.

    Raises:
        InputError: params.yaml is not valid.
    """
    if stage != STAGE:
        return False
    from tasks.download import archive_is_renewed  # noqa: PLC0415 - half a second to import
    from tasks.params.params import load_params  # noqa: PLC0415

    renewed = archive_is_renewed(load_params().download)
    if renewed is None:
        say(f"{UNKNOWN}; dvc repro --force {stage} fetches what is there")
    return bool(renewed)
