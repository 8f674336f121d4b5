"""What a compiled program sends between devices, read from its text: XLA's HLO after partitioning and optimization.

A computation counts as often as it is called, the body of a loop as often as the loop turns where XLA knows that.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16}
"""Of the types whose names do not end in their bits."""


class Collectives(NamedTuple):
    """By kind, of one device and one run of the program."""

    calls: Counter[str]
    bytes: Counter[str]
    """Of the results."""


def collectives(text: str) -> Collectives:
    """What the entry computation of a program sends. Raises ValueError for a loop that sends, and turns nobody knows
    how often."""
    bodies = dict(_computations(text))
    entry = re.search(r"^ENTRY %?([\w.-]+)", text, re.MULTILINE)[1]

    def of(name: str) -> Collectives:
        calls, size = Counter(), Counter()
        for line in bodies[name]:
            if found := re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line):
                shape, kind, begins = found.groups()
                calls[kind] += 1
                size[kind] += _bytes(_result(shape, kind) if begins else shape)
            for called, times in _called(line, of):
                inner = of(called)
                calls.update({kind: times * n for kind, n in inner.calls.items()})
                size.update({kind: times * n for kind, n in inner.bytes.items()})
        return Collectives(calls, size)

    return of(entry)


def _computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Name -> lines."""
    for found in re.finditer(r"^(?:ENTRY )?%?([\w.-]+) \([^\n]*\{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        yield found[1], found[2].splitlines()


def _called(line: str, of) -> Iterator[tuple[str, int]]:
    """The computations that an instruction calls, and how often; of branches, all."""
    if body := re.search(r"\bwhile\(.*body=%?([\w.-]+)", line):
        turns = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
        if turns is None and of(body[1]).calls:
            raise ValueError(f"a loop of unknown length sends: {line.strip()[:120]}")
        yield body[1], int(turns[1]) if turns else 0
    elif named := re.search(r"\b(?:call|fusion|async-start)\(.*(?:to_apply|calls)=%?([\w.-]+)", line):
        yield named[1], 1
    elif branches := re.search(r"branch_computations=\{(.*?)\}", line):
        yield from ((name.strip().lstrip("%"), 1) for name in branches[1].split(","))
    elif re.search(r"\bconditional\(", line):
        yield from ((name, 1) for name in re.findall(r"(?:true|false)_computation=%?([\w.-]+)", line))


def _result(shape: str, kind: str) -> str:
    """The results alone of what is begun: all but all-reduce name their operands before."""
    if kind == "all-reduce":
        return shape
    parts = re.findall(r"\([^()]*\)|\w+\[[\d,]*\]", shape.removeprefix("("))
    return parts[1]


def _bytes(shape: str) -> int:
    """Of an array "f32[8,4]{1,0}" or a tuple of them."""
    total = 0
    for kind, dims in re.findall(r"(\w+)\[([\d,]*)\]", re.sub(r"\{[^{}]*\}", "", shape)):
        count = 1
        for dim in filter(None, dims.split(",")):
            count *= int(dim)
        total += count * (BYTES.get(kind) or int(re.search(r"\d+", kind)[0]) // 8)
    return total
