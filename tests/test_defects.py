"""Defects that earlier systems of this kind had, and the tests that keep each of them out.

The numbers are those that the tests give in their own words. A test that is renamed or taken away
leaves a hole here, which is what this page is for.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Number: what went wrong, and where that is tried.
DEFECTS = {
    1: (
        "one fold changed the settings of those after it",
        "local/config/test_config.py::test_a_configuration_cannot_be_changed",
        "local/training/test_training.py::test_folds_do_not_touch_each_other",
        "recipes/test_rfcx_versions.py::test_every_fold_has_the_same_configuration_and_mixup",
    ),
    2: (
        "augmentation never ran",
        "local/training/augment/test_augment.py::test_off_is_the_identical_batch",
        "local/training/augment/test_augment.py::test_each_part_changes_the_batch",
        "local/training/augment/test_augment_training.py::test_each_of_them_reaches_the_network",
        "local/training/augment/test_augment_waveform.py::test_augmented_waveforms_change_what_the_network_sees",
    ),
    3: (
        "augmented sound was written into the cache",
        "local/training/augment/test_augment.py::test_the_input_is_not_modified",
        "local/training/augment/test_augment_waveform.py::test_nothing_is_frozen_into_the_dump",
    ),
    4: (
        "centres were never trained",
        "local/training/losses/test_losses_objective.py::test_centres_follow_the_distance_whatever_its_weight",
        "local/training/test_optimisation.py::test_every_parameter_is_in_one_group",
        "local/training/test_training.py::test_centres_are_optimised_move_and_are_kept",
        "local/training/test_training.py::test_a_stopped_run_with_centres_and_other_optimisers_goes_on",
        "local/models/test_models.py::test_every_parameter_gets_a_gradient",
    ),
    5: (
        "dropout was on at inference",
        "local/models/test_models.py::test_dropout_is_off_at_inference",
    ),
    6: (
        "accumulation dropped the end of an epoch",
        "local/training/test_training.py::test_steps_are_made_every_k_batches_and_for_the_rest",
        "local/training/test_training.py::test_the_gradient_is_the_mean_over_the_batches_that_there_were",
    ),
    7: (
        "the loss grew with the number of labels",
        "local/training/losses/test_losses.py::test_it_does_not_grow_with_the_number_of_labels",
        "local/training/losses/test_losses.py::test_a_batch_that_knows_nothing_gives_zero_and_a_finite_gradient",
    ),
    8: (
        "a second phase counted the first one's steps and wrote over its best",
        "local/training/test_training.py::test_a_start_stays_as_it_is_and_epochs_count_anew",
    ),
    9: (
        "predictions of an epoch were kept with their graph",
        "local/training/test_training.py::test_no_graph_outlives_its_step",
    ),
    10: (
        "losses that are no number were passed over in silence",
        "local/training/test_training.py::test_a_bad_step_is_skipped_and_leaves_no_trace",
        "local/training/test_training.py::test_too_many_bad_steps_stop_with_the_recordings",
    ),
    11: (
        "every process wrote the checkpoint and scored its own share",
        "local/training/test_distributed.py::test_ranks_are_one_process",
        "local/training/test_distributed.py::test_ranks_read_different_windows",
    ),
    12: (
        "one fold alone was logged",
        "test_end_to_end.py::test_every_file_is_there_and_opens",
    ),
    13: (
        "rejected rows were taken for confirmed ones",
        "local/data/annotations/test_rainforest.py::test_polarity_is_explicit",
        "local/labels/test_labels.py::test_a_rejected_candidate_is_a_local_negative",
    ),
    14: (
        "a rejected row denied the whole recording",
        "local/labels/test_labels.py::test_a_rejected_candidate_is_a_local_negative",
    ),
    15: (
        "the same rejected rows stood in training and validation",
        "local/stages/test_experiment.py::test_rejected_rows_are_split_as_confirmed_ones_are",
    ),
    16: (
        "what was unknown counted as absent",
        "local/labels/test_labels.py::test_unknown_stays_unknown",
        "local/training/losses/test_losses.py::test_unknown_cells_do_not_speak",
    ),
    17: (
        "a millisecond made a window positive and no frame of it",
        "local/labels/test_labels.py::test_a_sliver_decides_nothing",
        "local/labels/test_labels.py::test_order_of_events_and_the_agreement_of_clip_and_frames",
        "local/features/test_stretch.py::test_a_millisecond_of_overlap_labels_neither_window_nor_frame",
    ),
    18: (
        "of several events of a species one counted",
        "local/labels/test_labels.py::test_several_events_of_a_class_all_count",
        "local/labels/test_labels.py::test_events_of_a_class_fill_the_union_of_a_cell",
    ),
    19: (
        "labels of stretched sound stood where they had stood before",
        "local/labels/test_labels.py::test_label_times_scale_with_the_hop",
        "local/features/test_stretch.py::test_the_frame_that_sounds_is_the_frame_labelled",
    ),
    20: (
        "recordings had to last 60 s at 48 kHz, all of them in memory",
        "local/features/test_corpus.py::test_statistics_are_those_of_all_frames",
        "local/training/test_examples.py::test_short_recordings",
        "recipes/test_rfcx_prepare.py::test_tables_of_the_layout",
    ),
    21: (
        "song types were wired into the classes",
        "recipes/test_rfcx_prepare.py::test_song_types_become_classes_that_merge_back",
        "recipes/test_rfcx_prepare.py::test_the_competitions_26_outputs_merge_to_24",
    ),
    22: (
        "versions crashed when they were run",
        "local/config/test_config.py::test_every_shipped_configuration_loads_builds_and_steps",
        "recipes/test_rfcx_versions.py::test_a_step_a_checkpoint_and_scores",
    ),
    23: (
        "attention could not say no",
        "local/models/test_layers.py::test_attention_can_say_no",
        "local/models/test_cnn14.py::test_attention_can_say_no_in_cnn14",
    ),
    24: (
        "silence became a probability of one half",
        "local/models/test_layers.py::test_silence_of_the_activity_output_changes_no_score",
    ),
    25: (
        "the truth's mask took part in the score that chose the checkpoint",
        "local/training/test_training.py::test_the_score_that_selects_is_the_sliding_inference",
    ),
    26: (
        "scores went through the logistic function more than once",
        "local/models/test_layers.py::test_scores_are_logits",
        "local/models/test_cnn14.py::test_attention_can_say_no_in_cnn14",
    ),
    27: (
        "normalisation tied a model to one length of window",
        "local/models/test_models.py::test_shapes_at_any_length",
        "local/models/test_models.py::test_encoders_take_long_windows_with_one_set_of_weights",
    ),
    28: (
        "first weights were left out in silence",
        "local/models/test_cnn14.py::"
        "test_the_front_end_is_kept_or_replaced_and_every_skipped_key_is_listed",
        "local/models/test_weights.py::test_weights_of_another_network_are_refused",
    ),
    29: (
        "crops that differed each epoch chose the checkpoint",
        "local/training/test_training.py::test_the_score_that_selects_is_the_sliding_inference",
    ),
    30: (
        "folds that were left out were scored as zeros",
        "local/stages/test_experiment.py::test_merging_goes_by_name_not_by_position",
    ),
    31: (
        "one window, or a recording shorter than one, failed",
        "local/inference/test_inference.py::test_short_recordings_get_one_window_and_their_own_length",
        "local/labels/test_windows.py::test_windows_cover_and_stay_inside",
    ),
    32: (
        "stitched scores drifted along the recording",
        "local/labels/test_windows.py::test_a_peak_lies_within_half_a_cell_of_its_true_time",
        "local/labels/test_windows.py::test_no_drift_over_an_hour",
    ),
    33: (
        "folds were joined by their maximum",
        "local/inference/test_inference.py::test_models_are_averaged_in_probability_not_by_maximum",
    ),
    34: (
        "a submission was filled in the order of files",
        "local/relabel/test_correction.py::test_the_sample_decides_rows_and_columns",
    ),
    35: (
        "validation and test were pooled by different rules",
        "local/inference/test_inference.py::test_every_subset_is_pooled_by_one_function",
    ),
    36: (
        "rounding made ties",
        "local/relabel/test_correction.py::test_no_ties_through_the_file",
        "local/relabel/test_correction.py::test_probabilities_tie_only_where_logits_do",
    ),
    37: (
        "LWLRAP was a mean over batches, ties went by class, no number ranked first",
        "local/scoring/metrics/test_metrics.py::test_equals_scikit_learn_weighted_by_positives",
        "local/scoring/metrics/test_metrics.py::test_ties_are_pessimistic_and_blind_to_class_order",
        "local/scoring/metrics/test_metrics.py::test_nan_is_refused_with_its_place",
        "local/scoring/metrics/test_metrics.py::test_soft_and_coded_truth_is_refused",
    ),
    38: (
        "pseudo labels came from models that knew the recording",
        "local/stages/test_experiment.py::"
        "test_no_score_that_makes_labels_comes_from_a_model_that_saw_the_group",
        "local/stages/test_experiment.py::test_what_the_first_weights_saw_counts_as_seen",
        "local/stages/test_experiment.py::test_first_weights_are_known_by_their_content",
    ),
    39: (
        "names of files said where a row came from",
        "local/data/annotations/test_rainforest.py::test_polarity_is_explicit",
        "local/relabel/test_pseudo_labels.py::test_what_a_pseudo_event_says_of_itself",
    ),
    40: (
        "pseudo labels wrote over what people said",
        "local/labels/test_labels.py::test_tp_before_fp_before_pseudo",
        "local/relabel/test_pseudo_labels.py::test_true_rows_of_the_class_stand",
    ),
    41: (
        "pseudo labels denied, and were balanced over classes",
        "local/training/test_examples.py::test_true_classes_are_balanced_and_pseudo_ones_are_not",
        "local/relabel/test_pseudo_labels.py::test_defaults_make_no_negatives",
    ),
    42: (
        "a cycle went on from the model that had made its labels",
        "local/stages/test_experiment.py::test_where_a_cycle_starts",
    ),
    43: (
        "cycles were judged on labels that they had made themselves",
        "local/stages/test_results.py::test_every_cycle_has_its_scores",
        "local/scoring/test_known_labels.py::test_pseudo_rows_are_never_known",
    ),
    44: (
        "credentials and paths of one machine stood in the files",
        "recipes/test_rfcx_kaggle.py::test_nothing_secret_is_written",
        "test_defects.py::test_no_settings_name_a_folder_of_one_machine",
    ),
    45: (
        "packages were whatever was newest",
        "test_setup.py::test_every_package_is_pinned_exactly",
        "test_setup.py::test_what_the_packages_need_is_pinned_too",
    ),
    46: (
        "preparation ran in one process",
        "local/features/test_corpus.py::test_many_processes_write_what_one_writes",
    ),
    47: (
        "nothing ran without a cluster",
        "test_run_sh.py::test_no_argument_runs_all_stages_of_the_demo",
    ),
}


def test_none_is_left_out():
    assert list(DEFECTS) == list(range(1, 48))


@pytest.mark.parametrize("number", DEFECTS)
def test_each_is_tried_somewhere(number):
    what, *names = DEFECTS[number]
    assert what
    assert names
    for name in names:
        file, _, test = name.partition("::")
        source = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", source, re.M), name


def test_no_settings_name_a_folder_of_one_machine():
    """Defect 44: versions, stages and the library hold no absolute path but those of the system."""
    kinds = ("conf/**/*", "bin/*", "local/**/*.py", "recipes/**/*.py", "run.sh", "Makefile")
    paths = [path for kind in kinds for path in ROOT.glob(kind) if path.is_file()]
    own = re.compile(r"(?<![\w.~])/(home|Users|mnt|media|work|data|scratch|root)/\w")
    found = []
    for path in paths:
        if path.suffix != ".pyc":
            text = path.read_text(encoding="utf-8")
            found += [f"{path}: {match[0]}" for match in own.finditer(text)]
    assert len(paths) > 200
    assert found == []
