"""What of the comparison on photographs needs no training: its uneven set, its packing, its table."""

import io
import itertools
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

from benchmarks.photograph_sets import PhotographSet, long_tail, pack
from benchmarks.photographs import Finish, table
from tasks.stage.files import write_json

LABELS = ("cat", "dog", "owl")


def test_classes_fall_by_equal_factors() -> None:
    counts = long_tail(500, 10, 10)
    assert (counts[0], counts[-1]) == (500, 10)
    assert all(0.6 < after / before < 0.7 for before, after in itertools.pairwise(counts))


def test_the_first_class_has_the_first_number_and_all_are_tested_alike(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as tar:
        for split in ("train", "test"):
            for label in LABELS:
                for number in range(5):
                    member = tarfile.TarInfo(f"all/{split}/{label}/{number}.jpg")
                    member.size = 1
                    tar.addfile(member, io.BytesIO(str(number).encode()))
    pack(tmp_path / "all.tar.gz", tmp_path / "some.zip", [4, 2, 1])
    names = zipfile.ZipFile(tmp_path / "some.zip").namelist()
    found = Counter(name.rpartition("/")[0] for name in names)
    assert found == {f"train/{label}": count for label, count in zip(LABELS, (4, 2, 1), strict=True)} | {
        f"test/{label}": 5 for label in LABELS
    }


def test_times_are_compared_with_the_best_of_theirs(tmp_path: Path) -> None:
    counts = {name: {"total": total} for name, total in (("train", 1000), ("test", 200))}
    record = {"counts": counts, "classes": LABELS, "image_shape": [96, 96, 3], "content_sha256": {"test": "f" * 64}}
    (tmp_path / "split").mkdir()
    write_json(tmp_path / "split/split.json", record)
    sides = {
        "ours": [Finish(50, 0.9, 0.9, 0.03)],
        "theirs": [Finish(100, 0.8, 0.8)],
        "theirs, better": [Finish(200, 0.85, 0.8)],
        "our probe": [Finish(9, 0.8, 0.8, 0.04)],
        "their probe": [Finish(10, 0.8, 0.8)],
    }
    text = table(PhotographSet("owls", tmp_path), sides)
    assert "`finetune` 0.25 (0.25–0.25), `probe` 0.90 (0.90–0.90)" in text
    assert "| theirs | 80.00 % | 80.00 % | – | 100 s |" in text
