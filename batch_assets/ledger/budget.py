"""What a pipeline may spend, and whether the next job fits. Amounts are counted, and kept, in `money.py`."""

from dataclasses import dataclass

_DIGITS = 9


@dataclass(frozen=True)
class Budget:
    """The most that a pipeline may spend in US dollars, `budget_usd` of its executor; None: there is no limit."""

    usd: float | None = None

    def refusal(self, *, spent: float, held: float, bound: float) -> str | None:
        """Why a job that costs up to `bound` is not paid for; None where it fits beside what is spent and reserved."""
        if self.usd is None or rounded_usd(spent + held + bound) <= self.usd:
            return None
        return (
            f"budget reached: {_shown(spent)} USD are spent, {_shown(held)} USD are reserved "
            f"by jobs that run, the next needs up to {_shown(bound)} USD, and budget_usd is "
            f"{_shown(self.usd)}; raise budget_usd to go on"
        )


def rounded_usd(usd: float) -> float:
    """The amount as it is kept: to the billionth, so that many small sums leave no remainder."""
    return round(usd, _DIGITS)


def _shown(usd: float) -> str:
    """Cents, and more digits only where there would be none to see."""
    return f"{usd:,.2f}" if usd == 0 or usd >= 0.01 else f"{usd:.9f}".rstrip("0")
