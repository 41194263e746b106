"""Fuzz one reader, led by coverage: `python tests/fuzz/run_atheris.py "job file" [libFuzzer's options]`.

Needs atheris (`pip install atheris`; there are wheels for Linux and some Pythons only). Such as

    PYTHONPATH=.src python tests/fuzz/run_atheris.py trace -max_total_time=600 -rss_limit_mb=1024 -timeout=2

What it finds is written beside you as crash-*; `python tests/fuzz/run_atheris.py trace crash-...` runs it again.
Without a name it lists the readers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris")

with atheris.instrument_imports(include=["gpusched", "yaml", "csv", "json"]):
    from fuzz_targets import TARGETS, check


def main() -> None:
    """Fuzz until told to stop."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit("\n".join(["which one?", *sorted(TARGETS)]))
    target = TARGETS[sys.argv[1]]
    with tempfile.TemporaryDirectory(prefix="gpusched-corpus-") as corpus:
        for number, seed in enumerate(target.seeds):
            Path(corpus, f"seed-{number}").write_text(seed, encoding="utf-8")
        given = [word for word in sys.argv[2:] if word.startswith("-")]
        files = [word for word in sys.argv[2:] if not word.startswith("-")]
        atheris.Setup([sys.argv[0], *given, *(files or [corpus])], lambda data: check(target, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
