"""The ledger remembers what a pipeline was opened with here, under the root that it has."""

from batch_assets.ledger.ledger import Ledger
from batch_assets_tests.ledger.helpers import both_databases

pytestmark = both_databases


def test_it_is_remembered_for_one_root_only(ledger: Ledger) -> None:
    assert ledger.configuration("texts") is None
    assert ledger.configuration("nobody") is None
    for text in ('{"a": 1}', '{"a": "é"}', '{"a": "é"}'):
        ledger.set_configuration("texts", text)
        assert ledger.configuration("texts") == text
    ledger.attach("texts", "s3://bucket/out", 2, keep=True)
    assert ledger.configuration("texts") == '{"a": "é"}'
    ledger.attach("texts", "s3://bucket/other", 1)
    assert ledger.configuration("texts") is None, "another root is another's, until it is opened"
