"""Line charts as SVG, so that a page can show them without a library."""

from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 260, 60, 34, 34
_COLORS = ("#1f5fa8", "#c8501e", "#3a7d34")


def line_chart(title: str, lines: Mapping[str, Sequence[float]], *, goals: Mapping[str, float], unit: str) -> str:
    """One line for each name, a value per second from left to right; goals are dashed."""
    top = max([0.0, *goals.values(), *(value for values in lines.values() for value in values)]) * 1.08 or 1.0
    count = max(len(values) for values in lines.values())
    width, height = _WIDTH - _LEFT - 16, _HEIGHT - _TOP - _BOTTOM

    def x(index: int) -> float:
        return _LEFT + width * index / max(1, count - 1)

    def y(value: float) -> float:
        return _TOP + height * (1 - value / top)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{title}</text>',
    ]
    for step in range(5):
        value = top * step / 4
        parts.append(f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - 16}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    parts.append(
        f'<text x="{_WIDTH - 16}" y="{_HEIGHT - 6}" text-anchor="end">{count} simulated seconds, {unit}</text>'
    )
    for name, value in goals.items():
        parts.append(f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - 16}" stroke="#888" stroke-dasharray="5 4"/>')
        parts.append(f'<text x="{_WIDTH - 20}" y="{y(value) - 4:.1f}" text-anchor="end" fill="#555">{name}</text>')
    for number, (name, values) in enumerate(lines.items()):
        color = _COLORS[number % len(_COLORS)]
        points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(f'<text x="{_LEFT + 4 + 220 * number}" y="{_HEIGHT - 6}" fill="{color}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
