"""Recall on the way across, queries a second on a logarithmic way up: an SVG without a plotting library."""

import math

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 440, 70, 50, 40, 110
COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#7d3c98", "#b9770e")
LEAST = 0.9


def draw_curves(curves: dict[str, list[tuple[float, float]]], *, title: str) -> str:
    """curves: name -> points of (recall, queries a second), in order -> the text of an SVG."""
    rates = [rate for points in curves.values() for recall, rate in points if recall >= LEAST]
    low, high = 10 ** math.floor(math.log10(min(rates))), 10 ** math.ceil(math.log10(max(rates)))

    def across(recall: float) -> float:
        return LEFT + (recall - LEAST) / (1 - LEAST) * (WIDTH - LEFT - RIGHT)

    def up(rate: float) -> float:
        return HEIGHT - BOTTOM - math.log(rate / low) / math.log(high / low) * (HEIGHT - BOTTOM - TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{title}</text>',
    ]
    for step in range(11):
        recall = LEAST + (1 - LEAST) * step / 10
        x = across(recall)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#{"999" if step == 9 else "e5e5e5"}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{recall:.2f}</text>')
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        for digit in (1, 2, 5):
            rate = digit * 10**power
            if rate <= high:
                parts.append(f'<path d="M{LEFT} {up(rate):.1f}H{WIDTH - RIGHT}" stroke="#e5e5e5"/>')
                parts.append(f'<text x="{LEFT - 8}" y="{up(rate) + 4:.1f}" text-anchor="end">{rate:,}</text>')
    for at, (name, points) in enumerate(curves.items()):
        colour = COLOURS[at % len(COLOURS)]
        shown = [(across(recall), up(rate)) for recall, rate in points if recall >= LEAST]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in shown]
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{TOP + 20 * (at + 1)}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
