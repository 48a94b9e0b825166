"""The Markdown that scripts/bench prints."""

# Figure → its name, how many digits after the point, and whether more of it is better.
FIGURES = {
    "per_cpu": ("requests per CPU second", 0, True),
    "p99_ms": ("p99, ms", 2, False),
    "per_second": ("pushes per second", 0, True),
    "cpu_ms": ("CPU ms a push", 2, False),
    "mb_s": ("MB/s", 0, True),
    "push_mb_s": ("MB/s pushed meanwhile", 0, True),
    "cpu_gib": ("CPU seconds per GiB", 2, False),
    "peak_mib": ("peak memory, MiB", 0, False),
}
# What only we have, and what others have in its place.
INSTEAD = {
    "library lookup by tag": "manifest GET by tag",
    "library download by tag": "manifest GET by tag",
    "library push of": "push a blob of",
    "library pull of": "pull a blob of",
    "library push": "push of a blob and its manifest",
}
# The fastest way to send bytes that do not change; no registry.
STATIC = "nginx"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def instead(thing, things):
    """What is compared with a thing that peers don't do: the same without a token and in quiet, or of a registry."""
    ours = next((ours for ours in INSTEAD if thing.startswith(ours)), "")
    theirs = INSTEAD.get(ours, "") + thing.removeprefix(ours)
    named = (things.get(name, {}) for name in (theirs, theirs.split(", ")[0]))
    return next((works for works in named if len(works) > 1), {})


def compare(things, only=tuple(FIGURES)):
    """A table for each figure: ours, how many times better it is than that of the best peer, and the peers'."""
    names = list(dict.fromkeys(name for works in things.values() for name in works))
    ours, others = names[0], names[1:]
    text = []
    for figure in only:
        title, digits, more = FIGURES[figure]
        rows = []
        for thing, works in things.items():
            figures = {name: seen[figure] for name, seen in works.items() if figure in seen}
            if not figures:
                continue
            peers = works if len(works) > 1 else instead(thing, things)
            peers = [seen[figure] for name, seen in peers.items() if name not in (ours, STATIC) and figure in seen]
            ratio = ""
            if peers and ours in figures:
                ratio = f"{figures[ours] / max(peers):.2f}" if more else f"{min(peers) / figures[ours]:.2f}"
            cells = [f"{figures[name]:.{digits}f}" if name in figures else "" for name in names]
            rows.append([thing, cells[0], ratio, *cells[1:]])
        if rows:
            text.append(table([title, ours, "times the best peer", *others], rows))
    return "\n".join(text)


def report(result):
    before, after = result["load_before"][0], result["load_after"][0]
    text = [
        f"{result['processors']} processors, load average {before:.1f} before and {after:.1f} after (with this), "
        f"medians of {result['repetitions']}. \"Times the best peer\" says how many times better ours is, so less than 1 "
        "is worse; what peers don't have is compared with what they have instead, asked without a token and logged by "
        "nobody. nginx, which is no registry, doesn't count.\n"
    ]
    if result["compared"]:
        text.append(compare(result["compared"]))
    for part in ("pushers", "growth", "beside"):
        text += result.get(part, {}).get("text", [])
    return "\n".join(text)
