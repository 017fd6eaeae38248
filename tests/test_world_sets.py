"""Training sets of the built-in world: options at every place, and whose labels are seen."""

import pytest

from hkd_core.common.errors import UserError
from hkd_core.data.wording import rotations
from hkd_core.world.sets import first_labelled, in_all_places
from hkd_core.world.wording import WORDING


def lettered_rows(examples):
    return [row for row in examples if row["meta"].get("options")]


def test_a_rotated_example_keeps_the_right_content_at_every_place(examples):
    for row in lettered_rows(examples)[:5]:
        right = row["meta"]["options"]["ABCD".index(row["answer"])]
        for turn, new in enumerate(rotations(row, WORDING)):
            letter = new["answer"]
            assert new["meta"]["options"]["ABCD".index(letter)] == right
            assert f"{letter}: {right}" in new["prompt"]
            assert new["meta"]["options"][(0 - turn) % 4] == row["meta"]["options"][0]
        assert len(rotations(row, WORDING)) == 4 and rotations(row | {"answer": ""}, WORDING)[1]["answer"] == ""
        assert rotations(row, WORDING)[0] is row
    assert len({row["answer"] for row in in_all_places(lettered_rows(examples)[:1])}) == 4


def test_what_was_made_of_a_picture_is_labelled_if_the_picture_is():
    rows = [{"image_id": name, "meta": {}} for name in ("a", "a", "b", "c")]
    made = [{"image_id": f"{name}-a0", "meta": {"of": name}} for name in ("c", "a", "b")]
    assert first_labelled(rows + made, 2) == rows[:3] + made[1:]
    with pytest.raises(UserError, match="labels of 4 pictures wanted .*data.tuned.*only 3 have some"):
        first_labelled(rows + made, 4)
