"""What a service takes for tokens."""

from pydantic import Field

from batch_assets.settings.base import Settings


class TokenPrices(Settings):
    """What a service takes for tokens, in USD per million."""

    input: float = Field(ge=0, description="USD per million input tokens; of Bedrock, batch.")
    output: float = Field(default=0.0, ge=0, description="USD per million output tokens; of Bedrock, batch.")

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """USD for so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1e6
