"""Validations of other processes are logged by the process that started them."""

import logging

import pytest

from fer_pipeline.learning.training.history import History, HistoryEntry
from fer_pipeline.learning.training.loggers import history_tail


def make_entry(step):
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


def write_history(path, entries):
    history = History.create(path)
    for step in range(entries):
        history.add(make_entry(step))


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(history_tail, "_POLL_SECONDS", 0.01)
    return tmp_path / "unfinished.csv", tmp_path / "history.csv"


def test_each_entry_is_logged_once(files, caplog):
    first, last = files
    caplog.set_level(logging.INFO)
    with history_tail.tail_history(first, last):
        write_history(first, entries=3)
        # As at the end of a run.
        first.replace(last)
    # The first validation comes before any step.
    assert len(caplog.messages) == 2


def test_of_a_run_that_goes_on_only_what_is_new_is_told(files, caplog):
    first, last = files
    caplog.set_level(logging.INFO)
    write_history(first, entries=3)
    with history_tail.tail_history(first, last, known_entry_count=3):
        write_history(first, entries=5)
        first.replace(last)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("step 3")


def test_a_run_that_fails_before_its_first_validation_logs_no_older_one(files, caplog):
    _, last = files
    caplog.set_level(logging.INFO)
    write_history(last, entries=5)
    with pytest.raises(ValueError, match="fails"), history_tail.tail_history(*files):
        raise ValueError("fails")
    assert not caplog.messages


def test_of_a_run_that_is_replaced_none_is_told(files, caplog):
    first, last = files
    caplog.set_level(logging.INFO)
    write_history(last, entries=5)
    with history_tail.tail_history(first, last):
        write_history(first, entries=2)
        first.replace(last)
    assert len(caplog.messages) == 1
