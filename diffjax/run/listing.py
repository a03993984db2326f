"""Tables of what the flags can name: samplers, grids, conditions and configs."""


class Facts(NamedTuple):
    """What a sampler's docstring says of it, as text for a table.

    Attributes:
      order: of accuracy, weak where it is that of the moments; - where there is none.
      calls: of the denoiser per step; - where it chooses its own steps.
      paper: where it is from.
    """

    order: str
    calls: str
    paper: str


NUMBERS = dict(zip(("one", "two", "three", "four", "eight"), "12348", strict=True))
ORDER = re.compile(r" of ((?:weak )?)order (\d(?: to \d)?)")
CALLS = re.compile(r"(\S+) denoiser calls? per step((?:(?:,| and) \w+ (?:in|for) the \w+)*)")


def facts(constructor: Callable) -> Facts:
    """Order, calls and paper of a sampler from its docstring.

    The first line ends in the paper; Returns says "of order 2" and "two denoiser calls per step
    and one in the last".
    """
    text = inspect.getdoc(constructor)
    returns = " ".join(text.partition("Returns:")[2].split())
    order, calls = ORDER.search(returns), CALLS.search(returns)
    counted = calls[1].strip("`") + calls[2].replace(" and ", ", ") if calls else "-"
    words = re.split(r"( |, )", counted)
    return Facts(
        order=order[2] + " weak" * bool(order[1]) if order else "-",
        calls="".join(NUMBERS.get(word, word) for word in words),
        paper=text.split("\n")[0].rpartition(": ")[2].rstrip(".").replace("`", ""),
    )


def describe(functions: Mapping[str, Callable], taken: Collection[str] = ()) -> str:
    """A table of samplers: name, order, denoiser calls and paper; and below, the options.

    Args:
      functions: name to constructor.
      taken: as for `options_of`.

    Returns:
      Lines of text.
    """
    rows = [("name", *Facts._fields), *((name, *facts(f)) for name, f in functions.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    options = [""]
    for function in functions.values():
        parameters = inspect.signature(options_of(function, taken)).parameters.values()
        options.append(" ".join(f"--{p.name.replace('_', '-')} {p.default}" for p in parameters))
    lines = []
    for row, flags in zip(rows, options, strict=True):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
        lines += [f"{'':{widths[0]}}  {flags}"] if flags else []
    return "\n".join(lines)


