"""The supply chain: hashes of all requirements, known vulnerabilities in them, and what Bandit finds in our own code.

    python -m bench.faults.supply

Needs `requirements.txt` installed, and the internet for pip-audit. Where no database of vulnerabilities answers, the
audit is a row SKIPPED: that says nothing about the requirements.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.faults.common import Table, arguments

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("pypi", "osv")  # databases of pip-audit, in the order they are tried
TIMEOUT_S = 10  # for an answer of a database
_REASON = re.compile(r"#\s*nosec B\d+  # \w")


def requirement_files() -> list[Path]:
    """The compiled requirement files, the smallest first."""
    return sorted(ROOT.glob("requirements*.txt"), key=lambda file: file.stat().st_size)


def requirements(file: Path) -> list[tuple[str, list[str]]]:
    """Each requirement of a file, as (text before the options, options); comments and markers are left out."""
    text = re.sub(r"\s*\\\n\s*", " ", file.read_text(encoding="utf-8"))
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    words = [re.split(r"\s+(?=--)", line) for line in lines if line]
    return [(first.split(";")[0].strip(), options) for first, *options in words]


def loose(file: Path) -> list[str]:
    """Lines that do not name one version and the SHA-256 of its files."""
    return [
        " ".join([pin, *options])
        for pin, options in requirements(file)
        if not re.fullmatch(r"[\w.\[\]-]+==[\w.!+]+", pin)
        or not options
        or not all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in options)
    ]


def main() -> None:
    """Check the requirements, then the code."""
    table = Table("Supply chain", arguments(__doc__ or "", count=1, minutes=5))
    _hashes(table)
    _bandit(table)
    audited = _audit(table)
    if not audited:
        print("\n*** NOT AUDITED: no database of vulnerabilities answered; run this part where one can be reached ***")
    table.finish()


def _hashes(table: Table) -> None:
    for file in requirement_files():
        case = table.case(f"{file.name}: version and hashes")
        for line in (bad := loose(file)):
            case.fail(line)
        case.outcomes["pinned"] += len(requirements(file)) - len(bad)


def _bandit(table: Table) -> None:
    """Every finding is repaired, or settled in its line by `# nosec NUMBER  # REASON`."""
    report, _ = _json("bandit", "--quiet", "--recursive", "cxr", "steps", "--format", "json")
    if report is None or report["errors"]:
        table.case("Bandit").fail("it did not run to its end" if report is None else str(report["errors"]))
        return
    found = {(finding["filename"], finding["line_number"]): finding for finding in report["results"]}
    for place in ("cxr", "steps"):
        case = table.case(f"Bandit: {place}")
        for file in (ROOT / place).rglob("*.py"):
            name = file.relative_to(ROOT).as_posix()
            problems = [f"{n}: {finding['issue_text']}" for (where, n), finding in found.items() if where == name]
            problems += [] if name in report["metrics"] else ["0: was not read"]
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if re.search(r"#\s*nosec\b", line):
                    problems += [] if _REASON.search(line) else [f"{number}: nosec without number and reason"]
                    case.outcomes["findings settled with a reason"] += 1
            for problem in problems:
                case.fail(f"{name}:{problem}")
            case.outcomes["files without an open finding"] += not problems


def _audit(table: Table) -> bool:
    """Ask for known vulnerabilities of every requirement; returns whether all could be asked for."""
    complete, service = True, ""
    for file in requirement_files():
        case = table.case(f"{file.name}: known vulnerabilities")
        if service or not complete:
            answers = _ask(service, file) if service else None
        else:
            service, answers = next(((s, found) for s in SERVICES if (found := _ask(s, file))), ("", None))
        if answers is None:
            case.outcomes["SKIPPED: database cannot be reached"] += len(requirements(file))
            complete = False
            continue
        for package in answers:
            if package["vulns"]:
                known = ", ".join(entry["id"] for entry in package["vulns"])
                case.fail(f"{package['name']} {package['version']}: {known}")
            else:
                case.add("none known")
    return complete


def _ask(service: str, file: Path) -> list[dict[str, Any]] | None:
    """What pip-audit finds for each requirement; None unless the database answered for all of them."""
    words = ("--requirement", str(file), "--disable-pip", "--require-hashes", "--vulnerability-service", service)
    options = ("--format", "json", "--timeout", str(TIMEOUT_S), "--progress-spinner", "off")
    report, errors = _json("pip_audit", *words, *options)
    if report is None:
        print(f"pip-audit, {service}, {file.name}: {(errors.strip() or 'no answer').splitlines()[-1][:200]}")
        return None
    # Without an answer for a package, pip-audit skips it, reports "No known vulnerabilities found" and exits with 0.
    skipped = [package["skip_reason"] for package in report["dependencies"] if "skip_reason" in package]
    if skipped:
        print(f"pip-audit, {service}, {file.name}: {len(skipped)} of {len(report['dependencies'])}: {skipped[0]}")
        return None
    return report["dependencies"]


def _json(module: str, *words: str) -> tuple[dict[str, Any] | None, str]:
    """What a tool prints as JSON, or None, and its messages. Both tools exit with 1 if they find something."""
    done = subprocess.run([sys.executable, "-m", module, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout), done.stderr
    except ValueError:
        return None, done.stderr


if __name__ == "__main__":
    main()
