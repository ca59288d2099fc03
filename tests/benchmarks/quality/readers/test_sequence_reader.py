"""Files of sequences: what is read, what is refused."""

import gzip
import json

import numpy as np
import pytest

from benchmarks.quality.readers.sequence_reader import read_sequences
from recsys.errors import DataError

LINES = ["7 10 2 10", "", "anna\t2  30", "8 2"]


def write(folder, lines=LINES, name="Toys.txt", attributes=None):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(lines))
    if attributes is not None:
        text = attributes if isinstance(attributes, str) else json.dumps(attributes)
        (folder / "Toys_item2attributes.json").write_text(text)
    return folder


def test_users_and_items_keep_their_order(tmp_path):
    found = read_sequences(write(tmp_path))
    assert (found.name, found.num_users, found.num_items) == ("Toys", 3, 3)
    assert found.users.tolist() == [0, 0, 0, 1, 1, 2]
    # Numbered by number: 2, 10, 30.
    assert found.items.tolist() == [1, 0, 1, 0, 2, 0]
    assert found.attributes is None


def test_names_are_numbered_by_name(tmp_path):
    assert read_sequences(write(tmp_path, ["u b 10 a"])).items.tolist() == [2, 0, 1]


def test_a_packed_file_reads_alike(tmp_path):
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "My.Set.txt.gz").write_bytes(gzip.compress("\n".join(LINES).encode()))
    packed = json.dumps({"10": [1]}).encode()
    (tmp_path / "My.Set_item2attributes.json.gz").write_bytes(gzip.compress(packed))
    found = read_sequences(tmp_path)
    assert found.name == "My.Set"
    assert found.items.tolist() == [1, 0, 1, 0, 2, 0]
    assert found.attributes.toarray().tolist() == [[0], [1], [0]]


def test_attributes_are_those_of_the_files_items(tmp_path):
    table = {"2": [5, "red", 5], "30": [], "99": ["blue"], "10": ["red"]}
    found = read_sequences(write(tmp_path, attributes=table)).attributes
    assert found.toarray().tolist() == [[1, 1], [0, 1], [0, 0]]
    assert found.dtype == np.float32
    assert read_sequences(write(tmp_path, attributes={"99": [1]})).attributes is None


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["1 2", "3"], "line 2 has only '3'"),
        (["1 2", "", "1 3"], "line 3: user 1 has line 1 too"),
        (["", " "], "is empty"),
    ],
)
def test_lines_of_another_form_are_refused(tmp_path, lines, named):
    with pytest.raises(DataError, match=named):
        read_sequences(write(tmp_path, lines))


@pytest.mark.parametrize(
    ("attributes", "named"),
    [("{", "is no JSON"), ([1], "one object of lists"), ({"2": 3}, "object of lists")],
)
def test_attributes_of_another_form_are_refused(tmp_path, attributes, named):
    with pytest.raises(DataError, match=named):
        read_sequences(write(tmp_path, attributes=attributes))


def test_a_folder_holds_one_set(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        read_sequences(tmp_path / "none")
    with pytest.raises(DataError, match="has: none"):
        read_sequences(tmp_path)
    write(write(tmp_path), name="Other.txt")
    with pytest.raises(DataError, match=r"has: Other.txt, Toys.txt"):
        read_sequences(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"1 \xff\xfe")
    with pytest.raises(DataError, match="no text in UTF-8"):
        read_sequences(tmp_path)
    (tmp_path / "a.txt").rename(tmp_path / "a.txt.gz")
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_sequences(tmp_path)
