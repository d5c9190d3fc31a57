import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from local.report.charts import curve_lines, curves_figure, fold_look, score_groups, scores_figure
from local.report.page_records import Baseline, Curve, ScoreRow

NAN = float("nan")


def test_scores_are_grouped_and_in_the_order_of_cycles(full_report):
    groups = score_groups(full_report.scores)
    assert list(groups) == [("LWLRAP", "test"), ("LWLRAP", "out-of-fold")]
    assert [row.cycle for row in groups["LWLRAP", "test"]] == [0, 1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("width_px", [900, 350])
def test_scores_are_drawn_with_interval_and_baselines(full_report, width_px):
    figure = scores_figure(full_report.scores, full_report.baselines, width_px)
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.8123, 0.8765])
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose([s[:, 1] for s in segments], [[0.77, 0.85], [0.84, 0.91]])
    texts = [text.get_text() for text in axes.texts]
    assert {"0.812", "0.876", "chance 0.489", "constant row 0.760"} <= set(texts)
    assert [text.get_text() for text in figure.axes[1].texts] == ["no data"]


def test_a_missing_bound_does_not_hide_the_score():
    axes = scores_figure([ScoreRow("x", 0, "y", 0.5)], [], 900).axes[0]
    np.testing.assert_allclose(axes.collections[0].get_segments()[0][:, 1], [0.5, 0.5])


def test_curves_skip_missing_values_and_empty_series():
    curve = Curve(0, 3, [1, 2, 3, 4], {"score": [NAN, 0.1, NAN, 0.3], "lr": [NAN] * 4})
    lines = curve_lines([curve])
    assert list(lines) == ["score"]
    fold, epochs, values = lines["score"][0]
    assert fold == 3
    np.testing.assert_array_equal(epochs, [2, 4])
    np.testing.assert_array_equal(values, [0.1, 0.3])


def test_each_fold_has_its_own_line_in_every_plot(full_report):
    figure = curves_figure(full_report.curves, 900)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "score"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["fold 0", "fold 1"]


def test_folds_differ_by_more_than_colour():
    looks = {(str(fold_look(i)["linestyle"]), fold_look(i)["marker"]) for i in range(35)}
    assert len(looks) == 35


def test_names_of_baselines_and_values_keep_apart():
    rows = [ScoreRow("s", 0, "x", 0.705, 0.68, 0.73), ScoreRow("s", 1, "x", 0.785, 0.76, 0.81)]
    lines = [
        Baseline("s", "x", "chance", 0.16),
        Baseline("s", "x", "best constant row", 0.689),
        Baseline("s", "x", "close above chance", 0.21),
    ]
    figure = scores_figure(rows, lines, 900)
    canvas = FigureCanvasAgg(figure)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.axes[0].texts]
    assert len(boxes) == 5
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_curves_share_their_epochs():
    curve = Curve(0, 0, range(1, 23), {"loss_total": range(22), "valid": [NAN] * 10 + [0.5] * 12})
    figure = curves_figure([curve], 900)
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 22.5)] * 2
    assert figure.axes[0].get_title(loc="left") == "training loss, whole"
