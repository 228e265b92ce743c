"""The one account that the rehearsal plays in."""

ACCOUNT = "123456789012"  # moto's only one
