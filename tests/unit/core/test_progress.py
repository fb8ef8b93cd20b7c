"""When long work is told of."""

from fissura.core.progress import Reminders


def test_reminders_are_due_at_rising_intervals_from_the_last_news_on() -> None:
    clock = iter(range(1000))
    reminders = Reminders(lambda: next(clock))
    assert [waited for _ in range(299) if (waited := reminders.due())] == [15, 45, 105, 165, 225, 285]
    reminders.restart()
    assert [waited for _ in range(50) if (waited := reminders.due())] == [15, 45]
