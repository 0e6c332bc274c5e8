"""What a solver raises instead of handing back a weight it cannot vouch for."""


class NumericalError(ArithmeticError):
    """Numerical trouble in one weight: what (``name``), ``reason`` and ``remedy``, as phrases."""

    def __init__(self, *, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"{name}: {reason}; {remedy}")
        self.name = name
        self.reason = reason
        self.remedy = remedy
