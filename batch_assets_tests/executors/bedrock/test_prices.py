"""Prices: found by model, profile and ARN; one's own in their place."""

import pytest

from batch_assets.executors.bedrock.prices import Price, price_of, price_table
from batch_assets.settings.prices import TokenPrices


@pytest.mark.parametrize(
    ("model_id", "price"),
    [
        ("amazon.titan-embed-text-v2:0", Price(0.01, 0, 0.02, 0)),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-embed-text-v2:0", Price(0.01, 0, 0.02, 0)),
        ("amazon.titan-embed-image-v1", Price(0.4, 0, 0.8, 0)),
        ("us.anthropic.claude-3-haiku-20240307-v1:0", Price(0.125, 0.625, 0.25, 1.25)),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", Price(1.5, 7.5, 3, 15)),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Price(1.65, 8.25, 3.3, 16.5)),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", Price(1.5, 7.5, 3, 15)),
    ],
)
def test_prices(model_id: str, price: Price) -> None:
    assert price_of(model_id) == price


def test_an_unknown_model_has_no_price_but_ones_own() -> None:
    assert price_of("acme.words-v1") is None
    assert price_of("acme.words-v1", TokenPrices(input=1, output=2)) == Price(1, 2, 2, 4)


def test_costs() -> None:
    price = Price(0.01, 0.1, 0.02, 0.2)
    assert price.cost(2_000_000, 1_000_000) == pytest.approx(0.12)
    assert price.cost(2_000_000, 1_000_000, on_demand=True) == pytest.approx(0.24)


def test_the_table_has_a_date() -> None:
    assert price_table().date.year >= 2026
