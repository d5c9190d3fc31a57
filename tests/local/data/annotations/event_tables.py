"""Events to be written and read again."""

import pandas as pd
from hypothesis import strategies as st

from local.data.tables import EVENT_COLUMNS

# Any text that is not trimmed and has no tab, line end or control character.
LABELS = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12
).filter(lambda text: text == text.strip() != "")
TIMES = st.floats(0, 1e5, allow_subnormal=False)
BANDS = st.one_of(st.none(), st.tuples(st.floats(0, 1e4), st.floats(1.0001e4, 2e5)))


@st.composite
def event_rows(draw, recordings=("rec1", "rec 2", "b.c"), own_columns=True):
    """An events table with unknown bands, and with weights and polarities where wanted."""
    rows = []
    for _ in range(draw(st.integers(0, 6))):
        onset, offset = sorted((draw(TIMES), draw(TIMES)))
        low, high = draw(BANDS) or (float("nan"), float("nan"))
        polarity = draw(st.sampled_from([1, -1])) if own_columns else 1
        weight = draw(st.floats(1e-3, 1)) if own_columns else 1.0
        source = draw(st.sampled_from(["tp", "pseudo:cycle1"])) if own_columns else "raven"
        name, label = draw(st.sampled_from(recordings)), draw(LABELS)
        rows.append((name, label, onset, offset, low, high, polarity, weight, source))
    frame = pd.DataFrame(rows, columns=list(EVENT_COLUMNS))
    numbers = dict.fromkeys(("onset", "offset", "low_freq", "high_freq", "weight"), float)
    text = dict.fromkeys(("recording_id", "label", "source"), object)
    return frame.astype({**numbers, **text, "polarity": int})
