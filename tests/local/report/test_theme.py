import io
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from local.report import theme


def luminance(colour):
    """Relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize("ground", ["card", "page"])
def test_letters_and_lines_stand_out_in_both_schemes(scheme, ground):
    below = theme.TOKENS[ground][scheme]
    for token in ("ink", "muted", "blue", "orange", "green", "purple", "ochre"):
        assert contrast(theme.TOKENS[token][scheme], below) >= 4.5, token


def simple_figure(label="x"):
    with theme.drawing():
        figure = theme.new_figure(200, 100)
        axes = theme.place(figure, 40, 10, 120, 60)
        axes.plot([0, 1.23456], [0, 1.98765], color=theme.LIGHT["blue"], label=label)
        axes.text(0.1, 0.1, label)
        axes.imshow(np.eye(4), extent=(0, 1, 0, 1), interpolation="none")
    return figure


def test_svg_follows_the_scheme_and_is_the_same_each_time():
    svg = theme.to_svg(simple_figure())
    ElementTree.fromstring(svg)
    assert b"stroke: var(--blue)" in svg
    assert b"prefers-color-scheme:dark" in svg
    # The only places that name the light colour are the variable's own definition.
    assert svg.count(theme.LIGHT["blue"].encode()) == 1
    assert svg == theme.to_svg(simple_figure())


@pytest.mark.parametrize(
    "label", ["$\\frac{1}$", "0.123456", "#0b62a4", '<script x="1.23456">', "a & b"]
)
def test_labels_are_drawn_as_they_are(label):
    tree = ElementTree.fromstring(theme.to_svg(simple_figure(label)))
    texts = [node.text for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert label in texts


def test_place_counts_pixels_from_the_top_left():
    figure = theme.new_figure(200, 100)
    box = theme.place(figure, 20, 10, 100, 30).get_position()
    np.testing.assert_allclose([box.x0, box.y1, box.width, box.height], [0.1, 0.9, 0.5, 0.3])


def test_png_is_as_wide_as_asked_and_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    with Image.open(io.BytesIO(theme.to_png(simple_figure(), scale=2))) as picture:
        assert picture.size == (400, 200)
        corner = picture.convert("RGB").getpixel((0, 0))
    assert "#{:02x}{:02x}{:02x}".format(*corner) == theme.LIGHT["card"]
    assert dict(matplotlib.rcParams) == before
