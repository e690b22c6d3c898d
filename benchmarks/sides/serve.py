"""How a side of a comparison answers, a program of its own: one line in, one round measured, one line out.

Standard library only: the PyTorch side runs in an environment that has nothing else of this project.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(make: Callable[[dict[str, Any]], Callable[[], float | None]]) -> None:
    """Build the round that the case on the command line (JSON) asks for, then run it once for every line read.

    Args:
        make: From the case to a round: a function without arguments. What the round returns is its duration in
            seconds, or None where its wall clock from call to return is.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library's own words on standard output are no answers
    run_round = make(json.loads(sys.argv[1]))
    for _ in range(2):  # traces, compiles, fills caches
        run_round()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        own = run_round()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        answer = {"seconds": wall if own is None else own, "processor_seconds": processor}
        print(json.dumps(answer), file=answers, flush=True)
