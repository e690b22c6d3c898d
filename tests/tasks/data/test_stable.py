"""Whatever comes, goes or is relabelled: no image that was trained on, or chosen by, ever tests."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tasks.data.arrays import SPLITS, Arrays
from tasks.data.assignment import Assignment, Rule, divide
from tasks.data.labelled import UNASSIGNED, LabelledImages
from tasks.data.stable import choose_stable, group_of, keys_of, positions
from tasks.stage.errors import InputError

GROUP = r"^(patient\d+)_"
CLASSES = ("cat", "dog", "emu")


@dataclass(frozen=True)
class Photo:
    """A file of a collection: its name, its class, and the number that stands for its bytes and pixels."""

    name: str
    label: int
    content: int


def collection(photos: list[Photo]) -> LabelledImages:
    values = np.array([photo.content for photo in photos])
    images = np.stack([values // 256, values % 256, values * 0], axis=1).astype(np.uint8).reshape(-1, 1, 1, 3)
    return LabelledImages(
        Arrays(images, np.array([photo.label for photo in photos], np.int32)),
        CLASSES,
        np.full(len(photos), UNASSIGNED, np.int8),
        separate_duplicates=True,
        paths=tuple(f"{CLASSES[photo.label]}/{photo.name}" for photo in photos),
        file_sha256=tuple(f"{photo.content:064x}" for photo in photos),
    )


def divided(photos: list[Photo], seed: int) -> Assignment | None:
    """Divide as the stage does; nothing where so few images leave a split or class without any, which is refused."""
    try:
        return divide(collection(photos), Rule("stable", 0.2, 0.3, seed, GROUP))
    except InputError as error:
        assert "image is left for" in str(error)
        return None


class Collection(RuleBasedStateMachine):
    """A folder that people add to, remove from and correct, divided anew after each change."""

    @initialize(seed=st.integers(0, 9))
    def begin(self, seed: int) -> None:
        self.seed, self.count = seed, 0
        self.photos: list[Photo] = []
        self.used: set[int] = set()  # contents that some run trained on or chose by

    @rule(number=st.integers(1, 30), patients=st.integers(0, 3), label=st.integers(0, 2))
    def arrive(self, number: int, patients: int, label: int) -> None:
        for _ in range(number):
            self.count += 1
            name = f"patient{self.count % patients}_{self.count}.png" if patients else f"{self.count}.png"
            self.photos.append(Photo(name, label, self.count))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        for photo in data.draw(st.lists(st.sampled_from(self.photos), max_size=20)) if self.photos else []:
            if photo in self.photos:
                self.photos.remove(photo)

    @rule(data=st.data(), label=st.integers(0, 2))
    def relabel(self, data: st.DataObject, label: int) -> None:
        if self.photos:
            place = data.draw(st.integers(0, len(self.photos) - 1))
            photo = self.photos[place]
            self.photos[place] = Photo(photo.name, label, photo.content)

    @rule(data=st.data(), label=st.integers(0, 2))
    def copy(self, data: st.DataObject, label: int) -> None:
        if self.photos:
            self.count += 1
            photo = data.draw(st.sampled_from(self.photos))
            name = photo.name.replace(
                ".png", f"_copy{self.count}.png"
            )  # of the same group, as tasks/data/stable.py asks
            self.photos.append(Photo(name, label, photo.content))

    @invariant()
    def nothing_that_was_used_tests(self) -> None:
        if not self.photos or (assignment := divided(self.photos, self.seed)) is None:
            return
        contents = {name: {self.photos[i].content for i in assignment.indices[name]} for name in SPLITS}
        assert not contents["test"] & self.used
        assert not contents["test"] & (contents["train"] | contents["validation"])
        self.used |= contents["train"] | contents["validation"]
        groups = {name: self.groups_in(assignment, name) for name in SPLITS}
        assert not groups["test"] & (groups["train"] | groups["validation"])

    def groups_in(self, assignment: Assignment, split: str) -> set[str | None]:
        """Return the groups that have an image in a split."""
        return {group_of(self.photos[i].name, GROUP) for i in assignment.indices[split]} - {None}


TestCollection = Collection.TestCase
TestCollection.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


@given(st.lists(st.integers(), min_size=1, unique=True), st.integers(0, 2**31 - 1))
def test_a_place_is_a_function_of_seed_and_key_alone(numbers: list[int], seed: int) -> None:
    keys = [str(number) for number in numbers]
    together = positions(keys, seed)
    assert ((together >= 0) & (together < 1)).all()
    assert together.tolist() == [positions([key], seed)[0] for key in keys]


def test_shares_are_as_asked_for_and_the_test_set_does_not_depend_on_the_other() -> None:
    places = positions([str(number) for number in range(20_000)], seed=3)
    tests, validates = choose_stable(places, test_fraction=0.15, validation_fraction=0.1)
    assert abs(tests.mean() - 0.15) < 0.01
    assert abs(validates.mean() - 0.85 * 0.1) < 0.01
    assert not (tests & validates).any()
    assert (choose_stable(places, 0.15, 0.4)[0] == tests).all()
    assert (positions([str(number) for number in range(20_000)], seed=4) != places).all()


def test_a_group_is_what_the_expression_catches_in_the_name() -> None:
    names = ["patient1_a.png", "patient12_a.png", "patient1_b.png", "other.png"]
    keys = keys_of([group_of(name, GROUP) or "" for name in names], ["0", "1", "2", "3"])
    assert keys[0] == keys[2] != keys[1]
    assert keys[3] == "content 3"
    assert group_of("cam3-0001.png", r"cam\d+") == "cam3"
    assert group_of("a-b-c.png", r"^(.)-.-(.)") != group_of("a-c-c.png", r"^(.)-.-(b)?")
