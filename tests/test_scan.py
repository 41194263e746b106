"""What CI scans for: secrets in the tree, and known vulnerabilities of what is installed.

The second asks a database on the network; `GPUSCHED_AUDIT=1` has it run, and where nothing answers it says so.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PATTERNS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z ]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}"),
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{60,}\b"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{34,}\b"),
    "an OpenAI or Anthropic key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}\b"),
    "a Google key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "a URL with a password": re.compile(r"\b[a-z][a-z0-9+]+://[^\s/:@'\"{}<>$]+:([^\s/:@'\"{}<>$*]{6,})@"),
}
ASSIGNED = re.compile(
    r"(?i)\b[\w-]*(?:password|passwd|secret|token|api_?key|private_?key)[\w-]*['\"]?\s*[:=]\s*['\"]([A-Za-z0-9+/=_-]{20,})['\"]"
)
ENTROPY = 4.0
"""Bits a character from which on an assigned text looks made by chance, not by a person."""
ALLOWED = {"user:password@host", "ada:hunter2@", "s3ntinel", "not-a-real"}
"""Marks of values that are examples."""


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("no git checkout: there is nothing to tell what belongs to the tree")
    return [path for name in done.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def entropy(text: str) -> float:
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def findings(text: str) -> list[str]:
    """What in a text looks like a secret; never the secret itself."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if any(mark in line for mark in ALLOWED):
            continue
        found += [f"{number}: {what}" for what, pattern in PATTERNS.items() if pattern.search(line)]
        found += [f"{number}: an assigned secret" for value in ASSIGNED.findall(line) if entropy(value) > ENTROPY]
    if PATTERNS["a private key"].search(text):
        found.append("a private key")
    return found


def test_no_file_of_the_tree_holds_a_secret():
    wrong = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # a picture or an archive
        wrong += [f"{path.relative_to(ROOT)}:{found}" for found in findings(text)]
    assert wrong == []


@pytest.mark.parametrize(
    "planted",
    [
        "-----BEGIN RSA PRIVATE" + " KEY-----\n" + "MIIEowIBAAKCAQEA" * 8,
        "key = 'AKIA" + "IOSFODNN7EXAMPLE'",
        "ghp_" + "a1B2" * 9,
        "hf_" + "aB3d" * 9,
        "postgresql://ann:" + "hunter22@db.example.org/x",
        "api_key: '" + "q8Zt1Lr5Wd0Xc7Vb3Nm9" + "Kj2Hg6'",
    ],
)
def test_a_secret_that_is_planted_is_found(planted):
    assert findings(planted)


def test_what_is_installed_has_no_known_vulnerability():
    if os.environ.get("GPUSCHED_AUDIT") != "1":
        pytest.skip("GPUSCHED_AUDIT=1 asks the database of vulnerabilities")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the database of vulnerabilities does not answer: nothing was scanned")
    if "No module named" in done.stderr:
        pytest.skip("pip-audit is not installed: nothing was scanned")
    try:
        report = json.loads(done.stdout)
    except ValueError:
        pytest.skip(f"the database of vulnerabilities does not answer: nothing was scanned ({done.stderr[-300:]})")
    scanned = [one for one in report["dependencies"] if "skip_reason" not in one]
    if len(scanned) < len(report["dependencies"]) / 2:
        pytest.skip(f"the database knows only {len(scanned)} of {len(report['dependencies'])} packages: not scanned")
    wrong = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no release yet'}"
        for one in scanned
        for flaw in one.get("vulns", ())
        if flaw["fix_versions"]
    ]
    assert wrong == []
