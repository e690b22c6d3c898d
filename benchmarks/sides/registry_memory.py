"""The peak of memory of one publication or one pull of a large model, a program of its own: JSON in, JSON out."""

import json
import resource
import sys

from benchmarks.sides.registry import Place, describe, publish, pull
from tasks.storage.releases import publish_release


def main() -> None:
    """Do what the case on the command line asks for, once; print the peaks before and after in bytes."""
    case = json.loads(sys.argv[1])
    place = Place(case["bytes"])
    answers = sys.stdout
    sys.stdout = sys.stderr  # progress is no answer
    if case["operation"] == "publish":
        before = peak()
        publish(place)
    else:
        manifest = publish_release(place.bucket, place.release, describe(place.release))
        before = peak()
        pull(place, manifest.id)
        place.clear()
    print(json.dumps({"before": before, "after": peak()}), file=answers)


def peak() -> int:
    """Return the most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
