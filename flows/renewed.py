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
    from tasks.download import RAW, archive_is_renewed, passed_over  # noqa: PLC0415 - half a second to import
    from tasks.params.params import load_params  # noqa: PLC0415

    params = load_params().download
    if (path := passed_over(params, RAW)) is not None:
        say(f"{path} is not the archive that download.sha256 asks for, and is not taken; set its hash if it is meant")
    renewed = archive_is_renewed(params)
    if renewed is None:
        say(f"{UNKNOWN}; dvc repro --force {stage} fetches what is there")
    return bool(renewed)
