"""How far a command is: what takes its time is named, once."""

import threading
from types import SimpleNamespace

import pytest
from command_line import FEW, run
from rich.console import Console
from rich.progress import Progress

import bayesgmm as bg
from bayesgmm.cli import progress


def test_what_takes_its_time_is_named_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "NOTICEABLE", 0.0)
    status, _, err = run("fit", bg.datasets.__path__[0] + "/old_faithful.csv", "-k", 2, "--out", tmp_path, *FEW)
    assert status == 0
    assert "posterior ...\n" in err
    assert "summaries ...\n" in err


@pytest.fixture
def lines():
    lines = progress.Lines()
    yield lines
    lines.stop()


def wait_for_timers():
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(10)


def test_a_stage_is_named_once_however_often_it_reports(lines, monkeypatch, capsys):
    monkeypatch.setattr(progress, "NOTICEABLE", 0.0)
    for done in range(3):
        lines("EM fits", done, 3)
    wait_for_timers()
    assert capsys.readouterr().err == "EM fits ...\n"


def test_a_stage_that_has_ended_or_was_followed_by_another_is_not_named(lines, monkeypatch, capsys):
    monkeypatch.setattr(progress, "NOTICEABLE", 0.05)
    lines("EM fits", 0, 3)
    lines("posterior", 0, 0)  # a total that is not known yet does not end it
    wait_for_timers()
    assert capsys.readouterr().err == "posterior ...\n"
    lines("leave-one-out", 0, 5)
    lines("leave-one-out", 5, 5)
    wait_for_timers()
    assert capsys.readouterr().err == ""


def test_of_a_long_stage_the_pace_is_told_now_and_then(lines, monkeypatch, capsys):
    monkeypatch.setattr(progress, "NOTICEABLE", 1000.0)
    monkeypatch.setattr(progress, "AGAIN", 20.0)
    clock = iter([0.0, 10.0, 20.0, 30.0, 40.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    for done in range(5):
        lines("pass 3", done * 1_000_000, 5_000_000)
    assert capsys.readouterr().err == "pass 3: 40%, 1e+05/s, 30 s left\npass 3: 80%, 1e+05/s, 10 s left\n"


def test_of_many_stages_the_last_have_bars():
    display = Progress(console=Console(quiet=True))
    bars = progress.Bars(display)
    for n in range(12):
        bars(f"pass {n}", 20_000, 20_000)
    assert [task.visible for task in display.tasks] == [False] * 4 + [True] * 8


def test_every_stage_has_a_bar_of_its_own():
    display = Progress(console=Console(quiet=True))
    bars = progress.Bars(display)
    for stage, done, total in (("EM fits", 0, 0), ("EM fits", 3, 20), ("posterior", 5, 10), ("EM fits", 20, 20)):
        bars(stage, done, total)
    assert [(task.description, task.completed, task.total) for task in display.tasks] == [
        ("EM fits", 20, 20),
        ("posterior", 5, 10),
    ]
