"""What the registry's commands print says what their JSON says, and nothing that a terminal obeys."""

from typing import Any

import pytest

from tasks.registry.tables import (
    diff_text,
    garbage_text,
    history_text,
    list_text,
    plain,
    promotion_text,
    show_text,
    table,
    verification_text,
)

FIRST, SECOND = "a" * 16, "b" * 16
ROW = {
    "id": FIRST,
    "created_at": "2024-01-01T00:00:00+00:00",
    "dataset": "cifar10",
    "recipe": "fast",
    "top1": 0.8954,
    "top1_low": 0.8892,
    "top1_high": 0.9012,
    "images": 10000,
    "bytes": 61_234_567,
    "channels": ["champion"],
}
SAME: dict[str, Any] = {
    "before": FIRST,
    "after": SECOND,
    **{name: {} for name in ("code", "parameters", "data", "environment", "metrics", "classes")},
    "same_test_images": True,
}


def test_columns_are_aligned() -> None:
    assert table([{"a": "1", "b": "long"}, {"a": "22", "b": "x"}], {"a": "A", "b": "B"}) == "A   B\n1   long\n22  x"


def test_a_listed_release() -> None:
    title, row = list_text([ROW], "s3://bucket/releases").splitlines()
    assert title.split()[0] == "ID"
    for part in (FIRST, "2024-01-01 00:00:00 UTC", "89.54 %", "88.92 to 90.12 %", "61.2 MB", "champion"):
        assert part in row
    assert list_text([], "s3://bucket/releases") == "no releases in s3://bucket/releases yet"


def test_a_shown_release_says_from_which_it_began() -> None:
    manifest: dict[str, Any] = {
        "id": FIRST,
        "created_at": "2024-01-01T00:00:00+00:00",
        "metrics": {"top1": 0.5, "top1_low": 0.4, "top1_high": 0.6, "images": 10, "dataset": "digits"},
        "parameters": {"train": {"recipe": "fast", "seed": 0}},
        "training": {},
        **dict.fromkeys(("git", "parent")),
        **dict.fromkeys(("verdict", "files"), ()),
        "environment": {},
    }
    assert "began with" not in show_text(manifest, "s3://bucket", [])
    started = {"start": {"release": SECOND, "shrink_perturb": {"shrink": 0.4, "perturb": 0.1}}}
    text = show_text({**manifest, "training": started}, "s3://bucket", [])
    assert f"the weights of release {SECOND} × 0.4 + 0.1 × the seed's own" in text


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    text = list_text([{**ROW, "dataset": "\x1b[2Jcifar", "recipe": "a\nb"}], "")
    assert "?[2Jcifar" in text
    assert len(text.splitlines()) == 2
    assert plain("naïve ✓\u202e\r") == "naïve ✓??"


def test_a_difference_shows_both_sides_and_the_step_between_them() -> None:
    changed = {
        **SAME,
        "metrics": {"top1": {"before": 0.5, "after": 0.75, "change": 0.25}},
        "parameters": {"recipe.lookahead": {"before": None, "after": {}}},
        "data": {"content_sha256.test": {"before": "c" * 64, "after": "d" * 64}},
        "classes": {
            "ant": {"recall": {"before": 0.5, "after": 0.75, "change": 0.25}},
            "bee": {"recall": {"before": 0.75, "after": 0.5, "change": -0.25}},
        },
    }
    text = diff_text(changed)
    words = [line.split() for line in text.splitlines()]
    assert ["METRICS", FIRST, SECOND, "CHANGE"] in words
    assert ["top1", "0.5", "0.75", "(+0.25)"] in words
    assert "recipe.lookahead" in text
    assert f"{'c' * 16}…" in text
    assert text.index("bee") < text.index("ant")  # what lost most comes first
    assert "0.75 → 0.5 (-0.25)" in text


def test_no_difference_and_doubtful_ones_are_said() -> None:
    assert diff_text(SAME) == f"{FIRST} and {SECOND} do not differ"
    doubtful = diff_text({**SAME, "same_test_images": False, "classes": None})
    assert "different test images" in doubtful
    assert "no per_class.json" in doubtful


def test_a_verification_names_the_damage() -> None:
    sound = {"subject": FIRST, "files": 6, "bytes": 1000, "problems": []}
    damaged = {"subject": SECOND, "files": 0, "bytes": 0, "problems": ["model.keras is missing"]}
    text = verification_text({"sound": False, "verified": [sound, damaged]})
    assert text.splitlines() == [
        f"{FIRST}: sound, 6 files of 1.0 kB read",
        f"{SECOND}: damaged",
        "  model.keras is missing",
    ]
    assert verification_text({"sound": True, "verified": []}) == "there is nothing to verify yet"


@pytest.mark.parametrize(("deleted", "words"), [(False, "to remove: registry gc --delete"), (True, "removed")])
def test_garbage_is_summed_up(deleted: bool, words: str) -> None:
    garbage = [
        {"kind": "unfinished", "key": "releases/x", "bytes": 2000, "age_seconds": 90000.0},
        {"kind": "upload", "key": "releases/y", "bytes": None, "age_seconds": 90000.0},
    ]
    answer = {"deleted": deleted, "garbage": garbage, "unlisted": [FIRST], "problems": []}
    text = garbage_text(answer)
    assert f"2 objects and uploads, 2.0 kB, {words}" in text
    assert "25h00m" in text
    assert text.endswith("the index that lists are read from: 1")
    nothing = garbage_text({"deleted": deleted, "garbage": [], "unlisted": [], "problems": []})
    assert nothing == "no garbage that is a day old"


def test_a_history_shows_the_last_move_first() -> None:
    first = {"release": FIRST, "moved_at": "2024-01-01T00:00:00+00:00", "reason": "there is no champion yet"}
    second = {"release": SECOND, "moved_at": "2024-01-02T00:00:00+00:00", "reason": "night pictures"}
    moves: list[dict[str, Any]] = [
        {**first, "action": "publish", "actor": None, "forced": False},
        {**second, "action": "promote", "actor": "ann@lab", "forced": True},
    ]
    _, last, earlier = history_text(moves, "champion").splitlines()
    assert [cell for cell in last.split("  ") if cell] == [
        "2024-01-02 00:00:00 UTC",
        SECOND,
        "promote, forced",
        "ann@lab",
        "night pictures",
    ]
    assert FIRST in earlier
    assert history_text([], "champion") == "champion never pointed at a release"


def test_a_promotion_gives_what_each_rule_says() -> None:
    findings = [{"passed": True, "sentence": "no class falls"}, {"passed": False, "sentence": "it is slow"}]
    refused = {"id": FIRST, "champion": False, "forced": False, "verdict": findings}
    assert promotion_text(refused).splitlines() == [
        f"{FIRST} is not champion",
        "✓ no class falls",
        "✗ it is slow",
    ]
    forced = {"id": FIRST, "champion": True, "forced": True, "verdict": []}
    assert promotion_text(forced) == f"{FIRST} is champion, past the gate"
