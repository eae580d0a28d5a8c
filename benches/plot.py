#!/usr/bin/env python3
"""Draws what the benchmark measured: two SVGs from the JSON files that `--json` wrote.

    python3 benches/plot.py OUTPUT_DIRECTORY FILE.json [FILE.json ...]

    throughput.svg  records a second by the size of a record, appended one by one (cases W1.sizes)
    latency.svg     producer to consumer, by percentile (cases W6.latency)

Needs nothing but Python. The medians of all rounds are drawn.
"""

import json
import math
import sys
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 880, 540
LEFT, RIGHT, TOP, BOTTOM = 86, 190, 84, 76
INK, FAINT, PAPER = "#1f2430", "#e3e6ec", "#ffffff"
# Told apart by people who do not see all colours, and by dashes besides.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#5b5ea6", "#7a8b00"]
SIZES = {"16B": 16, "100B": 100, "1KiB": 1024, "16KiB": 16 << 10, "64KiB": 64 << 10}
PERCENTILES = ["p50 us", "p90 us", "p99 us", "p99.9 us", "max us"]


def cases(paths):
    """All cases of all files by name; of two with one name the later file's."""
    found = {}
    for path in paths:
        for case in json.loads(Path(path).read_text())["cases"]:
            found[case["case"]] = case
    return found


def median(row, name):
    return next((n["median"] for n in row["numbers"] if n["name"] == name), None)


def style_of(name, others):
    """Colour, width and dashes of a subject's line."""
    if name.startswith("ottla"):
        dashes = {"ottla": "", "ottla, spin 0": "7 4", "ottla, spinning": "2 4"}.get(name, "")
        return "#111111", 3.4, dashes
    if name.startswith("raw-"):
        greys = {"raw-memcpy": "1 5"}
        return "#8a93a3", 2.0, greys.get(name, "8 4")
    index = others.index(name)
    return COLOURS[index % len(COLOURS)], 1.8, "" if index < len(COLOURS) else "4 3"


class Chart:
    """A plot with a logarithmic y axis; x positions are given from 0 to 1."""

    def __init__(self, title, subtitle, x_label, y_label, values):
        # Half a decade of air at most, and whole or half decades as borders.
        self.low = math.floor(math.log10(min(values)) * 3) / 3
        self.high = math.ceil(math.log10(max(values)) * 3) / 3
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" fill="{INK}">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
            f'<text x="{LEFT}" y="34" font-size="19" font-weight="bold">{escape(title)}</text>',
            f'<text x="{LEFT}" y="58" font-size="13" fill="#5a6272">{escape(subtitle)}</text>',
        ]
        middle = (LEFT + WIDTH - RIGHT) / 2
        self.text(middle, HEIGHT - 22, x_label, 13, "middle")
        y = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(
            f'<text transform="translate(22 {y:.1f}) rotate(-90)" font-size="13" '
            f'text-anchor="middle">{escape(y_label)}</text>'
        )

    def x(self, share):
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def text(self, x, y, text, size, anchor="start", colour=INK, weight="normal"):
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{colour}" font-weight="{weight}">{escape(text)}</text>'
        )

    def line(self, x1, y1, x2, y2, colour):
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
        )

    def grid(self, ticks, shown):
        for decade in range(math.floor(self.low), math.ceil(self.high) + 1):
            for step in (1, 2, 5):
                value = step * 10.0**decade
                if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9:
                    y = self.y(value)
                    self.line(LEFT, y, WIDTH - RIGHT, y, "#c9ced8" if step == 1 else FAINT)
                    self.text(LEFT - 8, y + 4, shown(value), 12, "end")
        for share, label in ticks:
            x = self.x(share)
            self.line(x, TOP, x, HEIGHT - BOTTOM, FAINT)
            self.text(x, HEIGHT - BOTTOM + 20, label, 12, "middle")
        self.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, INK)

    def curves(self, curves):
        """Draws (name, style, [(share, value)]) and names each line at its right end."""
        ends = []
        for name, (colour, width, dashes), points in curves:
            path = " ".join(f"{self.x(s):.1f},{self.y(v):.1f}" for s, v in points)
            dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
            self.parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" '
                f'stroke-linejoin="round"{dashed}/>'
            )
            for share, value in points:
                self.parts.append(
                    f'<circle cx="{self.x(share):.1f}" cy="{self.y(value):.1f}" r="{width + 0.6:.1f}" fill="{colour}"/>'
                )
            share, value = points[-1]
            ends.append([self.y(value), name, colour, width, self.x(share), self.y(value)])
        # Names keep a line's distance from each other, and within the picture.
        ends.sort()
        for above, below in zip(ends, ends[1:]):
            below[0] = max(below[0], above[0] + 17)
        overflow = max(0, ends[-1][0] - (HEIGHT - BOTTOM)) if ends else 0
        for end in reversed(ends):
            end[0] -= overflow
        for below, above in zip(reversed(ends), list(reversed(ends))[1:]):
            above[0] = min(above[0], below[0] - 17)
        for y, name, colour, width, x, end_y in ends:
            label_x = WIDTH - RIGHT + 30
            self.line(x + 5, end_y, label_x - 4, y, colour)
            self.text(label_x, y + 4, name, 13, "start", colour, "bold" if width > 3 else "normal")

    def write(self, path):
        path.write_text("\n".join(self.parts + ["</svg>", ""]))
        print(path)


def count(value):
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def micros(value):
    return f"{value / 1000:g} ms" if value >= 1000 else f"{value:g} µs"


def throughput(found, out):
    points = {}
    for label, size in SIZES.items():
        case = found.get(f"W1.sizes.{label}", {"rows": []})
        for row in case["rows"]:
            rate = median(row, "records/s")
            if rate:
                points.setdefault(row["subject"], []).append((size, rate))
    if not points:
        return
    low, high = math.log(min(SIZES.values())), math.log(max(SIZES.values()))
    place = lambda size: (math.log(size) - low) / (high - low)
    others = sorted(n for n in points if not n.startswith(("ottla", "raw-")))
    chart = Chart(
        "Appending one record per call",
        "one thread; each record survives kill -9 on return (not raw-memcpy, not redb); higher is better",
        "bytes of a record",
        "records a second",
        [rate for line in points.values() for _, rate in line],
    )
    chart.grid([(place(size), label.replace("B", " B").replace("Ki ", " Ki")) for label, size in SIZES.items()], count)
    chart.curves(
        [
            (name, style_of(name, others), [(place(size), rate) for size, rate in line])
            for name, line in points.items()
        ]
    )
    chart.write(out / "throughput.svg")


def latency(found, out):
    case = found.get("W6.latency.10k")
    if not case:
        return
    lines = {}
    for row in case["rows"]:
        values = [median(row, name) for name in PERCENTILES]
        if all(values):
            lines[row["subject"]] = values
    if not lines:
        return
    others = sorted(n for n in lines if not n.startswith(("ottla", "raw-")))
    chart = Chart(
        "From send to the waiting consumer",
        "100 B, 10,000 records a second, one producer, one consumer; lower is better",
        "percentile",
        "time",
        [value for values in lines.values() for value in values],
    )
    last = len(PERCENTILES) - 1
    chart.grid([(i / last, name.replace(" us", "")) for i, name in enumerate(PERCENTILES)], micros)
    chart.curves(
        [
            (name, style_of(name, others), [(i / last, value) for i, value in enumerate(values)])
            for name, values in lines.items()
        ]
    )
    chart.write(out / "latency.svg")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    found = cases(sys.argv[2:])
    throughput(found, out)
    latency(found, out)


if __name__ == "__main__":
    main()
