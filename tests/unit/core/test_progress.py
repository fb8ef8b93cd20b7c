"""When long work is told of."""

from fissura.core.progress import Reminders


def test_reminders_are_due_at_rising_intervals_from_the_last_news_on() -> None:
    now = 100.0
    reminders = Reminders(lambda: now)
    told = []
    for now in range(100, 400):
        if waited := reminders.due():
            told.append(waited)
    assert told == [15, 45, 105, 165, 225, 285]
    reminders.restart()
    assert reminders.left() == 15
    now += 14
    assert not reminders.due()
    now += 1
    assert reminders.due() == 15
