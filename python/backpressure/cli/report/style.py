"""How the page looks: light or dark as the reader's system is, on paper, and on a phone."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1d2430; --soft: #5c6675; --rule: #dfe3e9; --card: #f6f7f9;
  --recorded: #9aa4b2; --new: #0b66c3; --old: #b25000; --bound: #8a5a00; --bad: #b3261e; --good: #1a7f45;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181f; --ink: #e4e8ee; --soft: #98a3b3; --rule: #2c3440; --card: #1b212b;
    --recorded: #75808f; --new: #6cb2ff; --old: #ff9f4a; --bound: #d9a441; --bad: #ff8a80; --good: #6fd39a;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
p { margin: .4rem 0; }
.soft, li { color: var(--soft); }
ul { padding-left: 1.2rem; margin: .5rem 0; font-size: .92rem; }
.wide { overflow-x: auto; }
.tag { display: inline-block; padding: 0 .5rem; border-radius: 1rem; background: var(--card);
  border: 1px solid var(--rule); font-size: .85rem; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .9rem; color: var(--soft); margin-top: .75rem; }
.key i { display: inline-block; width: 1.4rem; height: 0; border-top: 3px solid; vertical-align: middle;
  margin-right: .4rem; }
.key .recorded { border-color: var(--recorded); } .key .new { border-color: var(--new); }
.key .old { border-color: var(--old); } .key .bound { border-top: 2px dashed var(--bound); }
svg { display: block; width: 100%; min-width: 44rem; height: auto; margin: .25rem 0 .75rem; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg text.end { text-anchor: end; } svg text.bound { fill: var(--bound); }
svg path { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .bound { stroke: var(--bound); stroke-width: 1; stroke-dasharray: 5 4; }
svg text.bound { stroke: none; }
svg .recorded { stroke: var(--recorded); } svg .new { stroke: var(--new); } svg .old { stroke: var(--old); }
table { border-collapse: collapse; font-size: .92rem; min-width: 100%; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--rule); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tr.first td { border-top: 2px solid var(--rule); }
td b { font-weight: 600; }
td.bar { min-width: 8rem; text-align: left; }
td.bar i { display: inline-block; height: .7rem; background: var(--bad); border-radius: 2px; }
@media print { body { max-width: none; padding: 0; } section { break-inside: avoid; } }
"""
