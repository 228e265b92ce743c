"""Codes of records that a server has not answered."""

from batch_assets.embeddings.reason_codes import UNEXPECTED
from batch_assets.gateway.verdicts import Judgement, Verdict


def failure_code(judgement: Judgement) -> str:
    """Our own word where there was no answer, or one that is none; else the status, and whose fault it is."""
    if judgement.status in (0, 200):
        return judgement.code or UNEXPECTED
    kind = "server_error" if judgement.verdict is Verdict.BROKEN else "refused"
    return f"{kind}_{judgement.status}"
