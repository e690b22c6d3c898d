"""Stage split: data/raw → data/split, the arrays on which a model is trained, validated and tested."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.arrays import SPLITS, SplitRecord, index_hash, save_selected, save_split_record
from tasks.data.assignment import Assignment, Rule, divide
from tasks.data.hashes import write_hashes
from tasks.data.index import QUARANTINE_NAME, write_index, write_quarantine
from tasks.data.labelled import LabelledImages
from tasks.data.near_copies import COPIES_NAME, write_copies
from tasks.data.reading import read_images
from tasks.params.costs import cost_matrix
from tasks.params.data import SplitParams
from tasks.params.params import load_params
from tasks.sources.source import load_source
from tasks.stage.errors import run_command
from tasks.stage.files import replaced_folder
from tasks.stage.shown import printable

RAW = Path("data/raw")
OUTPUT = Path("data/split")
SHOWN = 3  # files that are set aside, in the stage's own words


def split(params: SplitParams, raw: Path, output: Path, costs: Mapping[str, float] | None = None) -> None:
    """Divide the images of a downloaded archive into train, validation and test arrays.

    Args:
        params: The section `split`.
        raw: What the stage download wrote.
        output: Folder of the arrays, split.json and tables, replaced as a whole; equal input gives equal bytes.
        costs: `evaluate.costs`, which change nothing here; whether they name classes is seen before hours of training.

    Raises:
        InputError: The archive is not what it should be, or too small to be divided so, or the costs are of no class.
    """
    source = load_source(raw)
    with replaced_folder(output) as temporary:
        scratch = temporary / "decoded"
        size, fit = params.image_size, params.fit
        data = read_images(source.dataset, source.archive, size, fit, scratch, params.max_quarantined)
        cost_matrix(costs or {}, data.classes)
        rule = _rule(params, source.dataset)
        assignment = divide(data, rule)
        contents = {name: save_selected(temporary, name, data.arrays, assignment.indices[name]) for name in SPLITS}
        record = _record(source.dataset, rule, data, assignment, contents)
        save_split_record(temporary, record)
        write_hashes(temporary, data.sha256, data.pixel_sha256, assignment.indices)
        write_index(temporary, data, assignment, rule.group)
        write_quarantine(temporary, data.quarantine)
        near = write_copies(temporary, data, assignment) if data.separate_duplicates else 0
        scratch.unlink(missing_ok=True)
    sizes = ", ".join(f"{len(assignment.indices[name]):,} {name}" for name in SPLITS)
    print(f"{sizes} images of {len(data.classes)} classes")
    if data.quarantine:
        named = "; ".join(reason for _, reason in data.quarantine[:SHOWN])
        print(f"{len(data.quarantine):,} files are set aside, see {output / QUARANTINE_NAME}: {printable(named)}")
    if near:
        print(f"{near:,} images look like another one, saved anew: see {output / COPIES_NAME}")
    if contradictions := record.duplicates["conflicting_labels"]:
        print(f"{contradictions:,} images lie there under several labels, and test nothing: see {output / COPIES_NAME}")
    for name in SPLITS:
        absent = [label for label, count in record.counts[name]["per_class"].items() if not count]
        if absent:
            print(f"no {name} image of {', '.join(absent[:10])}{' …' if absent[10:] else ''}: not measured there")


def _rule(params: SplitParams, dataset: str) -> Rule:
    """Return how the images are divided; `auto` is stable for people's own, which grow."""
    usual = "stable" if dataset == "folders" else "stratified"
    method = usual if params.method == "auto" else params.method
    return Rule(method, params.validation_fraction, params.test_fraction, params.seed, params.group)


def _record(
    dataset: str, rule: Rule, data: LabelledImages, assignment: Assignment, contents: dict[str, str]
) -> SplitRecord:
    """Return what split.json says."""
    height, width, channels = data.arrays.images.shape[1:]
    return SplitRecord(
        dataset=dataset,
        classes=data.classes,
        image_shape=(height, width, channels),
        method=rule.method,
        seed=rule.seed,
        counts={name: _counts(data, assignment, name) for name in SPLITS},
        index_sha256={name: index_hash(assignment.indices[name]) for name in SPLITS},
        content_sha256=contents,
        duplicates=assignment.duplicates,
        fit=data.fit,
    )


def _counts(data: LabelledImages, assignment: Assignment, name: str) -> dict[str, Any]:
    """Return a split's number of images, in all and for each class."""
    labels = data.arrays.labels[assignment.indices[name]]
    per_class = np.bincount(labels, minlength=len(data.classes)).tolist()
    return {"total": len(labels), "per_class": dict(zip(data.classes, per_class, strict=True))}


def main() -> None:
    """Run the stage on the repository's own folders."""

    def command() -> None:
        params = load_params()
        split(params.split, RAW, OUTPUT, params.evaluate.costs)

    run_command("split", command)


if __name__ == "__main__":
    main()
