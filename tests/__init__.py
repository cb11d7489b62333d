"""The suite. It runs the library under a type checker: shapes and types of every call, ints allowed for floats."""

from beartype import BeartypeConf, beartype

typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
