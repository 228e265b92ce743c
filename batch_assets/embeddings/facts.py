"""What is learnt of a job beside its outcomes: for the commit marker and for people."""

from dataclasses import dataclass, field


@dataclass
class JobFacts:
    """What is known of a job once its outcomes are read; goes into the commit marker.

    `narrowed`: it has come closer to what is wrong with some records, which costs them no attempt.
    """

    model: str = ""
    dtype: str = ""
    device: str = ""
    dimensions: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    cost_usd: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    narrowed: bool = False

    def add(self, input_tokens: int = 0, output_tokens: int = 0, cost_usd: float | None = None) -> None:
        """So much came on top. A cost of None is one that is not known, and adds nothing."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd
