"""How a step of the flow fails, and whether another try may end better."""


class StepError(Exception):
    """A step of the flow failed.

    Attributes:
        sentence: What happened, for a person.
        reason: What the step itself said last.
    """

    sentence: str
    reason: str

    @property
    def is_final(self) -> bool:
        """Whether the step says that its input is wrong."""
        return False

    @property
    def is_outage(self) -> bool:
        """Whether something that the step needs is away for now."""
        return False

    @property
    def passes_soon(self) -> bool:
        """Whether another try may succeed at once: nothing has to come back first."""
        return False

    @property
    def is_transient(self) -> bool:
        """Whether the same step may succeed later, with nothing put right by a person."""
        return self.is_outage or self.passes_soon
