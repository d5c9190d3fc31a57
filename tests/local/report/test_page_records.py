import pandas as pd
import pytest

from local.report.page_records import Curve


def test_curve_from_a_log_takes_numbers_and_refuses_uneven_series():
    frame = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.4], "note": ["a", "b"]})
    curve = Curve.from_log(frame, 1, 2, ["loss", "note", "absent"])
    assert dict(curve.series) == {"loss": [0.5, 0.4]}
    assert list(curve.epoch) == [1, 2]
    with pytest.raises(ValueError, match="'loss' has 1 values for 2 epochs"):
        Curve(0, 0, [1, 2], {"loss": [1.0]})
