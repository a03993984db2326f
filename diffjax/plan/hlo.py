"""Reading a compiled program's text: bytes moved in memory and between chips.

The compiler's own count enters the body of a loop once; here it counts for every turn.
"""

import math
import re
from typing import NamedTuple

ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
OPCODE = re.compile(r"\s([a-z][a-z0-9\-]*)\(([^)]*)\)")
HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "partition-id", "replica-id", "after-all", "iota", "opt-barrier",
}  # fmt: skip
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Instruction(NamedTuple):
    """One line: its name, result type, opcode, operands, the whole line, and if it is the root."""

    name: str
    type: str
    opcode: str
    operands: list[str]
    line: str
    root: bool


class Collective(NamedTuple):
    """One exchange between chips.

    Attributes:
      kind: all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute.
      bytes: of the whole array, as each chip of the group has or gets it.
      group: chips that take part together.
      times: per step.
    """

    kind: str
    bytes: int
    group: int
    times: int

    @property
    def sent(self) -> float:
        """Bytes that each chip sends per step, by the ring algorithm."""
        share = 1.0 if self.kind == "collective-permute" else (self.group - 1) / self.group
        return self.times * self.bytes * share * (2 if self.kind == "all-reduce" else 1)


Program = dict[str, list[Instruction]]


def parse(text: str) -> tuple[Program, str]:
    """A compiled module as its computations by name, and the name of the first to run."""
    program, entry, current = {}, "", []
    for line in text.splitlines():
        header = HEADER.match(line)
        if header:
            current = program[header[2]] = []
            entry = header[2] if header[1] else entry
        elif " = " in line and line.startswith(" "):
            left, _, right = line.strip().partition(" = ")
            found = OPCODE.search(" " + right)
            if found:
                operands = re.findall(r"%([\w.\-]+)", found[2])
                name = left.removeprefix("ROOT ").lstrip("%")
                kind = (" " + right)[: found.start()]
                root = left.startswith("ROOT ")
                current.append(Instruction(name, kind, found[1], operands, right, root))
    return program, entry


def _arrays(type: str) -> list[tuple[int, bool]]:
    """(bytes, whether in HBM) of each array of a type; S(n) marks other memories."""
    out = []
    for dtype, shape, layout in ARRAY.findall(type):
        bits = int(re.sub(r"\D", "", dtype[:4]) or 8) if dtype != "pred" else 8
        size = math.prod(int(n) for n in shape.split(",") if n)
        out.append((size * bits // 8, not re.search(r"S\(\d+\)", layout)))
    return out


def _bytes(type: str, hbm_only: bool = True) -> int:
    return sum(size for size, hbm in _arrays(type) if hbm or not hbm_only)


def _called(instruction: Instruction, attribute: str) -> list[str]:
    found = re.search(rf"\b{attribute}=\{{?([^,}}\s]+(?:, %[^,}}\s]+)*)", instruction.line)
    return [name.strip().lstrip("%") for name in found[1].split(",")] if found else []


def _turns(program: Program, loop: Instruction) -> int:
    """How often a loop runs: the constant that its counter is compared with."""
    lines = [i.line for name in _called(loop, "condition") for i in program.get(name, [])]
    constants = [int(n) for line in lines for n in re.findall(r"constant\((\d+)\)", line)]
    return max(constants, default=1)


def visits(program: Program, entry: str, inside: bool) -> dict[str, int]:
    """How often each computation runs in a step; with `inside`, those within fusions too."""
    times: dict[str, int] = {}

    def walk(name, count):
        times[name] = times.get(name, 0) + count
        for instruction in program.get(name, []):
            if instruction.opcode == "while":
                for body in _called(instruction, "body"):
                    walk(body, count * _turns(program, instruction))
                continue
            attributes = ["branch_computations", "true_computation", "false_computation"]
            attributes += ["to_apply"] if instruction.opcode == "call" else []
            attributes += ["calls"] if inside else []
            for attribute in attributes:
                for called in _called(instruction, attribute):
                    walk(called, count)

    walk(entry, 1)
    return times


def hbm_bytes(text: str) -> int:
    """Bytes that a step reads from and writes to a chip's HBM.

    Args:
      text: of the compiled module.

    Returns:
      The sum over instructions of what they read and write there; of a slice of an array
      only the slice counts.
    """
    program, entry = parse(text)
    total = 0
    for name, times in visits(program, entry, inside=False).items():
        types = {i.name: i.type for i in program[name]}
        total += times * sum(_moved(program, i, types) for i in program[name])
    return total


def _moved(program: Program, instruction: Instruction, types: dict[str, str]) -> int:
    """Bytes that one instruction moves in HBM."""
    opcode, operands = instruction.opcode, [types.get(o, "") for o in instruction.operands]
    if opcode in FREE or opcode.endswith("-done") or "AllocateBuffer" in instruction.line:
        return 0
    if opcode in ("dynamic-slice", "gather", "slice"):
        return 2 * _bytes(instruction.type)
    if opcode == "dynamic-update-slice":
        return 2 * _bytes(operands[1])
    if opcode == "slice-start":
        size, hbm = _arrays(instruction.type)[1]
        return size * (2 if hbm else 1)
    if opcode.endswith("-start"):
        first = _arrays(instruction.type)[:1]
        return sum(size for size, hbm in first if hbm) + sum(map(_bytes, operands))
    if opcode == "fusion" and (inner := _inside(program, instruction)):
        read = sum(_read(program, inner, k, type) for k, type in enumerate(operands))
        return read + _written(program, inner, instruction.type)
    return _bytes(instruction.type) + sum(map(_bytes, operands))


def _inside(program: Program, fusion: Instruction) -> list[Instruction]:
    """What a fusion is made of."""
    return program.get(_called(fusion, "calls")[0], [])


def _read(program: Program, inner: list[Instruction], k: int, type: str) -> int:
    """Bytes that a fusion reads of its k-th operand: of one only sliced, the slices."""
    if not _bytes(type):
        return 0
    (name,) = [i.name for i in inner if i.opcode == "parameter" and f"parameter({k})" in i.line]
    whole = _bytes(type)
    return min(whole, _used(program, inner, name, whole))


def _used(program: Program, inner: list[Instruction], name: str, whole: int) -> int:
    """Bytes that the users of a value want of it, through bitcasts and fusions in fusions."""
    total = 0
    for user in (i for i in inner if name in i.operands):
        if user.opcode == "dynamic-slice":
            total += _bytes(user.type, hbm_only=False)
        elif user.opcode == "bitcast":
            total += _used(program, inner, user.name, whole)
        elif user.opcode == "fusion" and (deeper := _inside(program, user)):
            for k in (k for k, operand in enumerate(user.operands) if operand == name):
                (parameter,) = [i.name for i in deeper if f"parameter({k})" in i.line]
                total += _used(program, deeper, parameter, whole)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
            total += whole
    return total


def _written(program: Program, inner: list[Instruction], type: str) -> int:
    """Bytes that a fusion writes: of an array updated in place, the update."""
    by_name = {i.name: i for i in inner}
    root = next(i for i in inner if i.root)
    roots = [by_name.get(o) for o in root.operands] if root.opcode == "tuple" else [root]
    total = 0
    for out, (size, hbm) in zip(roots, _arrays(type), strict=False):
        if hbm:
            total += min(size, _updated(program, by_name, out, size))
    return total


def _updated(program: Program, by_name: dict, out: Instruction | None, size: int) -> int:
    """Bytes of a result that are new, through bitcasts and fusions in fusions."""
    while out and out.opcode == "bitcast":
        out = by_name.get(out.operands[0])
    if out and out.opcode == "dynamic-update-slice" and out.operands[1] in by_name:
        return _bytes(by_name[out.operands[1]].type, hbm_only=False)
    if out and out.opcode == "fusion" and (inner := _inside(program, out)):
        root = next(i for i in inner if i.root)
        if root.opcode != "tuple":
            return _updated(program, {i.name: i for i in inner}, root, size)
    return size


def collectives(text: str, chips: int) -> list[Collective]:
    """Every exchange between chips in a step.

    Args:
      text: of the compiled module.
      chips: of the slice, the group where none is named.

    Returns:
      One entry for each in the program, with how often it runs. The parts of one that the
      compiler cut up to overlap it with other work share a channel, and count once.
    """
    program, entry = parse(text)
    found: dict[str, Collective] = {}
    for name, times in visits(program, entry, inside=True).items():
        for i in program.get(name, []):
            kind = i.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            sizes = [size for size, _ in _arrays(i.type)]
            whole = max(sizes) if i.opcode.endswith("-start") else sum(sizes)
            group = _group(i.line, chips)
            if i.opcode.startswith("reduce-scatter"):
                whole *= group
            channel = re.search(r"channel_id=(\d+)", i.line)
            key = channel[0] if channel else i.name
            before = found.get(key)
            if group > 1 and (before is None or times > before.times):
                found[key] = Collective(kind, whole, group, times)
    return list(found.values())


def _group(line: str, chips: int) -> int:
    """Chips that take part in one exchange, from any of the ways the text has to say it."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed[1].split(","))
    if table := re.search(r"replica_groups=\[(\d+),(\d+)\]", line):
        return int(table[2])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\].*?\{('[^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    return chips
