"""What a solver raises instead of handing back a weight it cannot vouch for."""


class NumericalError(ArithmeticError):
    """Numerical trouble in one weight: ``name`` (what), ``reason`` and ``remedy``, each a phrase."""

    def __init__(self, *, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"{name}: {reason}; {remedy}")
        self.name = name
        self.reason = reason
        self.remedy = remedy
