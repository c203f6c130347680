"""Probabilities as they are told: near 1 as many digits as are needed to tell them apart."""

import pytest

from cxr.serving.probabilities import in_digits


@pytest.mark.parametrize(
    ("probability", "told"),
    [
        *((0.0, "0"), (1.0, "1"), (0.5, "0.5"), (0.6, "0.6"), (0.02714, "0.0271"), (1e-7, "1e-07")),
        *(
            (0.857, "0.857"),
            (0.95123, "0.9512"),
            (0.999, "0.999"),
            (0.99987, "0.99987"),
            (1 - 1.234e-9, "0.99999999877"),
        ),
    ],
)
def test_three_digits_of_what_is_less(probability, told):
    assert in_digits(probability) == told
