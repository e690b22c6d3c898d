"""Drills: what an engineer on call would try, on real servers and workers.

`make drill` runs every one on the digits, `make drill ONLY=training_killed` one; `make drill SOAK_MINUTES=60` kills
something every minute while the schedule fires. docs/runbook.md names the drill that shows each of its rows.
"""
