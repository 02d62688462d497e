"""The log of the validations of a run in other processes."""

import logging
from pathlib import Path

import pytest

from fer_pipeline.learning.training.history import History, HistoryEntry
from fer_pipeline.learning.training.loggers import history_tail


def make_entry(step: int) -> HistoryEntry:
    return HistoryEntry(
        step=step,
        epoch=step,
        minibatch_loss=1.0,
        minibatch_accuracy=0.5,
        rows=4,
        validation_loss=None,
        validation_accuracy=None,
        validation_mean_class_accuracy=None,
        learning_rate=0.1,
        restart=0,
    )


def write_history(path: Path, entry_count: int) -> None:
    history = History.create(path)
    for step in range(entry_count):
        history.add(make_entry(step))


@pytest.fixture
def history_files(tmp_path, monkeypatch):
    monkeypatch.setattr(history_tail, "_POLL_SECONDS", 0.01)
    return tmp_path / "unfinished.csv", tmp_path / "history.csv"


def test_each_entry_is_logged_once(history_files, caplog):
    unfinished, final = history_files
    caplog.set_level(logging.INFO)
    with history_tail.tail_history(unfinished, final):
        write_history(unfinished, entry_count=3)
        # As at the end of a run.
        unfinished.replace(final)
    # The first validation comes before any step.
    assert len(caplog.messages) == 2


def test_only_new_entries_of_a_resumed_run_are_logged(history_files, caplog):
    unfinished, final = history_files
    caplog.set_level(logging.INFO)
    write_history(unfinished, entry_count=3)
    with history_tail.tail_history(unfinished, final, known_entry_count=3):
        write_history(unfinished, entry_count=5)
        unfinished.replace(final)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("step 3")


def test_a_run_that_fails_before_its_first_validation_logs_no_entry_of_an_older_run(
    history_files, caplog
):
    _, final = history_files
    caplog.set_level(logging.INFO)
    write_history(final, entry_count=5)
    with pytest.raises(ValueError, match="fails"), history_tail.tail_history(*history_files):
        raise ValueError("fails")
    assert not caplog.messages


def test_no_entry_of_a_replaced_run_is_logged(history_files, caplog):
    unfinished, final = history_files
    caplog.set_level(logging.INFO)
    write_history(final, entry_count=5)
    with history_tail.tail_history(unfinished, final):
        write_history(unfinished, entry_count=2)
        unfinished.replace(final)
    assert len(caplog.messages) == 1
