"""Judges mutants and reports on them, for both tools that make them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
AT_LEAST = 95.0  # percent

#: Its place, the line before and after, and why no test can notice.
Survivor = tuple[str, str, str, str]


def before_and_after(diff: str) -> tuple[str, str]:
    """Return the text that a diff removes and the text that it adds, each as one line."""
    old, new = (re.findall(rf"^\{sign}(?!{re.escape(2 * sign)})(.*)", diff, re.MULTILINE) for sign in "-+")
    return " ".join(map(str.strip, old)), " ".join(map(str.strip, new))


def publish(name: str, head: list[str], by_module: dict[str, Counter[str]], survivors: list[Survivor]) -> int:
    """Write `tests/mutants/<name>.md`, print a line, return the exit status."""
    report = ROOT / "tests" / "mutants" / f"{name}.md"
    lines = [*head, "", "| module | mutants | killed | survived |", "|---|---|---|---|"]
    for module, counts in sorted(by_module.items()):
        total, killed = counts.total(), counts["killed"]
        lines.append(f"| `{module}` | {total} | {killed} ({killed / total:.1%}) | {total - killed} |")
    lines += ["", "## Survivors", "", "| where | before | after | why no test can tell |", "|---|---|---|---|"]
    for where, old, new, why in survivors:
        cells = (f"`{text}`".replace("|", "\\|") for text in (where, old, new))
        lines.append(f"| {' | '.join(cells)} | {why or '**unknown**'} |")
    report.parent.mkdir(exist_ok=True)
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    all_counts = sum(by_module.values(), Counter[str]())
    percent = 100 * all_counts["killed"] / max(1, all_counts.total())
    unknown = sum(not why for *_, why in survivors)
    print(f"{all_counts.total()} mutants, {percent:.1f} % killed, {unknown} survive without a reason:", end=" ")
    print(f"see {report.relative_to(ROOT)}")
    return 1 if percent < AT_LEAST or unknown else 0
