from __future__ import annotations

import pytest

from lab.domains.derivations.prime_field import LARGEST, check_prime, divide, inverses
from lab.errors import LabError


@pytest.mark.parametrize("modulus", [2, 3, 11, 97])
def test_every_number_but_zero_has_its_inverse(modulus: int) -> None:
    table = inverses(modulus).tolist()
    assert table[0] == 0
    assert all(number * inverse % modulus == 1 for number, inverse in enumerate(table) if number)


@pytest.mark.parametrize(
    ("modulus", "sentence"),
    [
        (12, r"The modulus 12 = 2 \* 6 is not prime, so 2 has no inverse"),
        (91, r"The modulus 91 = 7 \* 13 is not prime"),
        (1, "The modulus 1 must be a prime between 2 and"),
        (-7, "The modulus -7 must be a prime"),
        (LARGEST + 1, "must be a prime between 2 and"),
    ],
)
def test_other_moduli_are_refused(modulus: int, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        check_prime(modulus)


def test_nothing_is_divided_by_zero() -> None:
    assert divide(3, 2, 11) == 7
    with pytest.raises(LabError, match="3 / 22 modulo 11 divides by zero"):
        divide(3, 22, 11)
