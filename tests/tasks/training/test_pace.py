from tasks.training.pace import LONG, MOST, SHORT, Pace


def test_short_launches_grow_up_to_a_limit_and_long_ones_shrink_to_one_step() -> None:
    pace = Pace()
    lengths = []
    for _ in range(12):
        lengths.append(pace.steps)
        pace.observe(pace.steps, SHORT / 2)
    assert lengths == [1, 2, 4, 8, 16, 32, 64, 128, 256, MOST, MOST, MOST]
    for _ in range(12):
        pace.observe(pace.steps, 2 * LONG)
    assert pace.steps == 1


def test_a_launch_that_was_cut_short_or_took_as_long_as_it_should_changes_nothing() -> None:
    pace = Pace()
    pace.steps = 8
    pace.observe(3, SHORT / 2)
    pace.observe(8, (SHORT + LONG) / 2)
    assert pace.steps == 8
