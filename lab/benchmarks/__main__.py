"""``python -m lab.benchmarks [NAME …]``: run the benchmarks of this folder; each prints ratios measured in one run."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from lab import benchmarks


def main() -> None:
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__")
    chosen = sys.argv[1:] or names
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        sys.exit(f"there is no benchmark {unknown[0]!r}; there are {', '.join(names)}")
    for name in chosen:
        print(f"{name}:", flush=True)
        importlib.import_module(f"lab.benchmarks.{name}").main()


if __name__ == "__main__":
    main()
