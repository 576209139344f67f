"""Where labels go in a plot so that none lies on another, on a marker or outside.

All lengths are pixels of the plotting area, from its upper left corner.
"""

from dataclasses import dataclass
from math import cos, hypot, log, pi, sin

REACH = (0, 10, 22, 36, 52, 70, 90, 112, 136, 164)  # gaps tried between a marker and its label
DIRECTIONS = (0, 180, 270, 90, 315, 45, 225, 135)  # degrees, clockwise from the right
GAP = 4
MISREAD = 60  # the price of a label that is nearer to another marker than to its own


@dataclass(frozen=True)
class Axis:
    """A scale with a fixed domain: what Vega does with it, known before drawing."""

    low: float
    high: float
    pixels: float
    log: bool = False
    upwards: bool = False

    def pixel(self, value: float) -> float:
        """Where a value of the domain is drawn."""
        if self.log:
            share = log(value / self.low) / log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.pixels * (1 - share if self.upwards else share)

    def value(self, pixel: float) -> float:
        """The value that is drawn at a pixel."""
        share = pixel / self.pixels
        share = 1 - share if self.upwards else share
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)

    def held(self, value: float) -> float:
        """The value, or the nearest that is inside."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True)
class Marker:
    """A point to be labelled: its centre, its radius, and the size of its label."""

    x: float
    y: float
    radius: float
    width: float
    height: float

    @property
    def box(self) -> Box:
        r = self.radius
        return Box(self.x - r, self.y - r, self.x + r, self.y + r)

    def away(self, box: Box) -> float:
        """How far its edge is from a box; negative where the box begins inside it."""
        across = max(box.left - self.x, self.x - box.right, 0)
        down = max(box.top - self.y, self.y - box.bottom, 0)
        return hypot(across, down) - self.radius

    def label(self, degrees: float, gap: float) -> Box:
        """The label's box in one direction, its nearest edge ``gap`` away from the marker."""
        across, down = cos(degrees * pi / 180), sin(degrees * pi / 180)
        reach = self.radius + GAP + gap
        x = self.x + across * (reach + self.width / 2)
        y = self.y + down * (reach + self.height / 2)
        half_width, half_height = self.width / 2, self.height / 2
        return Box(x - half_width, y - half_height, x + half_width, y + half_height)


def placed(markers: list[Marker], lines: list[Box], plot: Box) -> list[Box]:
    """A box for each marker's label, the nearest place that is free; same input, same places.

    Where no place is free, the one that covers least. ``lines`` (of intervals) are avoided at a
    lower price than labels, markers and the plot's edge.
    """
    boxes: list[Box] = []
    for marker in markers:
        found, least = None, float("inf")
        for gap in REACH:
            for degrees in DIRECTIONS:
                box = marker.label(degrees, gap)
                covered = sum(box.overlap(b) for b in [*boxes, *(m.box for m in markers)])
                outside = box.area - box.overlap(plot)
                cost = 1000 * (covered + outside) + sum(box.overlap(line) for line in lines)
                cost += 2 * gap if gap else 0  # rather a little over a line than far away
                nearest = min(m.away(box) for m in markers)
                cost += MISREAD if nearest < marker.away(box) else 0
                if cost < least:
                    found, least = box, cost
        assert found is not None
        boxes.append(found)
    return boxes
