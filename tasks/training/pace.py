"""How many steps a launch takes."""

SHORT, LONG = 0.5, 2.0  # seconds that a launch should take: few round trips, still a live progress line
MOST = 512


class Pace:
    """Steps a launch, doubled while launches are short and halved where they are long. It changes no result."""

    def __init__(self) -> None:
        self.steps = 1

    def observe(self, steps: int, seconds: float) -> None:
        """Take note that a launch of `steps` took so long."""
        if seconds < SHORT and steps >= self.steps:
            self.steps = min(2 * self.steps, MOST)
        elif seconds > LONG:
            self.steps = max(self.steps // 2, 1)
