"""The metrics of several workers as those of one gate: counters, histograms' buckets and gauges are added."""


def summed(texts: list[str]) -> str:
    """One exposition in Prometheus' text format of several; the lines in the order of the first that has them."""
    values: dict[str, float] = {}
    lines: dict[str, None] = {}
    for text in texts:
        for line in text.splitlines():
            if line.startswith("#"):
                lines.setdefault(line)
                continue
            name, _, value = line.rpartition(" ")
            lines.setdefault(name)
            values[name] = values.get(name, 0.0) + float(value)
    return "".join(f"{line}\n" if line.startswith("#") else f"{line} {values[line]:.15g}\n" for line in lines)
