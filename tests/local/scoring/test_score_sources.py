from local.scoring.evaluation.score_sources import read_events


def test_true_events_in_the_rainforest_s_columns(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("recording_id,species_id,t_min,t_max,snr\nx,12,0.5,1.5,3\n")
    event = read_events(path).iloc[0]
    assert event.tolist()[:4] == ["x", "s12", 0.5, 1.5]
    assert event[["low_freq", "high_freq"]].isna().all()
    path.write_text("recording_id,species_id,t_min,f_min,t_max,f_max\nx,2,0,93.75,1,1400\n")
    event = read_events(path).iloc[0]
    assert event[["label", "onset", "offset"]].tolist() == ["s2", 0.0, 1.0]
    assert event[["low_freq", "high_freq", "polarity"]].tolist() == [93.75, 1400.0, 1]
