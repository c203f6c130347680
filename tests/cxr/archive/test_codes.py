"""Every class and probability has a code of its own."""

import itertools

from cxr.archive import codes
from cxr.archive.identity import FORMAT


def test_long_names_that_begin_alike_have_different_codes():
    names = [
        "tuberculosis_active",
        "tuberculosis_active-pleural",
        "tuberculosis_latent",
        "active",
        "a_b",
        "a-b",
        "covid",
    ]
    made = [of(name) for of, name in itertools.product((codes.of_class, codes.probability_of), names)]
    assert len({code.value for code in made}) == len(made)
    assert all(0 < len(code.value) <= 16 for code in made)


def test_short_names_are_their_own_codes_while_the_format_stays():
    """A code of a stored report must not change its meaning."""
    assert (codes.of_class("covid").value, codes.probability_of("pneumonia").value) == ("COVID", "P-PNEUMONIA")
    assert codes.probability_of("tuberculosis_active").value == "P-TUBERCU-0A0D2A" and FORMAT == "1"
