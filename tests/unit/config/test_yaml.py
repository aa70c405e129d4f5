"""Files that are no YAML, or hostile YAML: one clear problem, at its place, quickly."""

import pytest

from ci_bot.config import Kind, Severity
from ci_bot.config.nodes import MAX_DEPTH, MAX_NODES
from ci_bot.config.source import MAX_BYTES
from tests.unit.config.example import ONE_NODE, STEP, kinds, only, problem, read

HEAD = "version: 1\ntype: single\n"


@pytest.mark.parametrize(
    ("line", "column", "says"),
    [
        ("project: a: b", 11, "second `: `"),
        ("project: *", 10, "begins with `*` needs quotes"),
        ("project: &", 10, "begins with `&` needs quotes"),
        ("\tproject: a", 1, "indented with a tab"),
        ("project: @a", 10, "may not begin with `@`"),
        ('project: "a', 10, "never closed"),
        ("project: [a", 10, "not closed"),
        ("project: {a: b", 10, "not closed"),
        ('project: "\\q"', 11, "not an escape"),
        ("  project: a", 10, "indented like a part of the line before"),
        ("project:a", 1, "Write `project: a`"),
        ("project: }", 10, "needs quotes"),
        ("project: *name", 10, "repeats an anchor that is not defined"),
        ("project: &a [*a]", 14, "inside what it repeats"),
        ("<<<<<<< HEAD", 1, "merge conflict"),
        ("- project", 1, "is an item of a list"),
        ("project：a", 1, "has a full-width colon, which is none to YAML. Write `project: a`"),
    ],
)
def test_a_line_that_is_no_yaml_is_named_with_what_to_write(line: str, column: int, says: str) -> None:
    found = problem(f"{HEAD}{line}\n")
    assert (found.line, found.column, found.severity, found.kind) == (3, column, Severity.ERROR, Kind.SYNTAX)
    assert says in found.message


def test_a_quote_that_is_missing_is_named_where_it_opens_and_not_where_yaml_notices() -> None:
    found = problem(f'{HEAD}project: "a\nexperiment: "b"\n')
    assert (found.line, found.column) == (3, 10)


def test_indentation_that_fits_nothing_is_named() -> None:
    found = problem("version: 1\nworker:\n    command: x\n  count: 1\n")
    assert (found.line, found.column, found.kind) == (4, 3, Kind.SYNTAX)


@pytest.mark.parametrize(
    ("line", "column", "says"),
    [
        ('project: "a" [ex: b|c]', 14, "write `# [ex: b|c]`"),
        ('project: "pip install "dask" && x"', 24, "put the whole value between '"),
        ("project: 'it's'", 14, "write '' for each"),
    ],
)
def test_text_behind_a_closing_quote_is_an_error_and_the_rest_is_still_read(line: str, column: int, says: str) -> None:
    found = read(f"{ONE_NODE}{line}\nretries: many\n")
    assert kinds(found) == [(5, Severity.ERROR, Kind.TEXT_AFTER_QUOTE), (6, Severity.ERROR, Kind.VALUE)]
    assert found.problems[0].column == column
    assert says in found.problems[0].message


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("version:1\ntype: single\n", 1, 1, "`version:1` has no space after its colon. Write `version: 1`."),
        ("version:1\n\n# why\ntype: single\n", 1, 1, "Write `version: 1`."),
        ("version:1\ntype:single\nworker:\n", 1, 1, "Write `version: 1`."),
        ("# what\n---\nversion:1\ntype: single\n", 3, 1, "Write `version: 1`."),
        ("version：1\ntype: single\n", 1, 1, "full-width colon, which is none to YAML. Write `version: 1`."),
        ("version 1\ntype: single\n", 1, 1, "`version 1` is not `key: value`. Write a colon and a space"),
        ("worker\n  command: x\n", 1, 1, "`worker` is not `key: value`."),
        (HEAD + "worker:\n  command:python x\n  machine-type: a\n", 4, 3, "Write `command: python x`."),
        (HEAD + "worker:\n  command:python x\n  # why\n  machine-type: a\n", 4, 3, "Write `command: python x`."),
        (STEP.replace("name: mnist", "name:mnist"), 5, 9, "`name:mnist` has no space after its colon."),
        (HEAD + "worker:\n  command: python a\n    --b\n    --c: d\n", 6, 8, "like a part of the line before it"),
        (HEAD + "worker:\n  command:\n    python a\n    --c: d\n", 6, 8, "like a part of the line before it"),
        (HEAD + "worker:\n  a:\n    b\n   c: d\n", 6, 5, "like a part of the line before it"),
        (HEAD + "worker:\n  - b\n c: d\n", 5, 2, "is indented to column 2, which fits nothing"),
    ],
)
def test_a_first_key_without_its_colon_is_blamed_itself_and_not_the_line_where_yaml_notices(
    text: str, line: int, column: int, says: str
) -> None:
    found = problem(text)
    assert (found.line, found.column, found.kind) == (line, column, Kind.SYNTAX)
    assert says in found.message


@pytest.mark.parametrize("escape", ["\\q", "\\ud800", "\\xzz", "\\u12", "\\UFFFFFFFF"])
def test_an_escape_that_is_none_is_shown_from_its_backslash_to_its_end(escape: str) -> None:
    found = problem(f'{HEAD}project: "a\\\\{escape}"\n')
    assert (found.line, found.column) == (3, 14)
    assert found.message.startswith(f"`{escape}` is not an escape")


def test_each_tag_is_an_error_and_the_rest_is_read_as_if_there_were_none() -> None:
    text = "version: !!python/name:os.system 1\ntype: !x single\nworker: !y\n  command: !!binary eA==\nretries: many\n"
    found = read(text)
    assert kinds(found) == [
        *((line, Severity.ERROR, Kind.TAG) for line in (1, 2, 3, 4)),
        (5, Severity.ERROR, Kind.VALUE),
    ]
    assert not found.experiments


def test_a_value_that_is_only_a_tag_is_no_value() -> None:
    assert kinds(read(ONE_NODE + "project: !x\n")) == [(5, Severity.ERROR, Kind.TAG)]


def test_a_second_document_is_an_error_and_the_first_is_still_read() -> None:
    found = read(ONE_NODE + "retries: many\n---\n[}\n---\n")
    assert kinds(found) == [(5, Severity.ERROR, Kind.VALUE), (6, Severity.ERROR, Kind.DOCUMENTS)]
    assert not read(ONE_NODE + "---\n").experiments


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", Kind.EMPTY),
        (b"# nothing\n", Kind.EMPTY),
        (b"---\n", Kind.EMPTY),
        (b"~", Kind.EMPTY),
        (b"a" * (MAX_BYTES + 1), Kind.SIZE),
        (b"\xff\xfea", Kind.ENCODING),
        (b"version: \xff", Kind.ENCODING),
        (b"version: \0", Kind.ENCODING),
        (b"version: \x1b", Kind.ENCODING),
        ("a: \ufeff".encode(), Kind.ENCODING),
        (b"[1, 2]", Kind.SYNTAX),
        (b"text", Kind.SYNTAX),
        (b"%TAG !a! b\n" * 9, Kind.LIMIT),
    ],
)
def test_a_file_that_is_no_configuration_at_all_has_one_problem(content: bytes, kind: Kind) -> None:
    found = read(content)
    assert [(each.severity, each.kind) for each in found.problems] == [(Severity.ERROR, kind)]
    assert not found.experiments


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{a: " * 50_000,
        "- " * 100_000,
        "? " * 100_000,
        "- a\n" * 60_000,
        "-\n" * 80_000,
        "a: &a [x]\n" + "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}' if i else '*a'] * 9)}]\n" for i in range(9)),
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, MAX_DEPTH + 1)),
        "a: &a {x: 1}\n" + "b: {<<: [" + "*a, " * MAX_NODES + "]}\n",
    ],
)
@pytest.mark.timeout(10)
def test_a_file_that_would_grow_without_end_is_refused_before_it_grows(text: str) -> None:
    assert problem(text).kind is Kind.LIMIT


@pytest.mark.parametrize("inside", ["", "x"])
def test_nesting_is_told_apart_from_what_aliases_nest(inside: str) -> None:
    deep = f"a: {'[' * (MAX_DEPTH - 1)}{inside}{']' * (MAX_DEPTH - 1)}\n"
    assert Kind.LIMIT not in {each.kind for each in read(deep).problems}
    assert problem(deep.replace("[", "[[", 1)).message.startswith("lists and mappings are nested more than 40 deep")
    assert problem(deep.replace("a: ", "a: &a ") + "b: [*a]\n").message.startswith("aliases nest lists and mappings")


def test_a_file_of_exactly_the_limit_is_read() -> None:
    assert read(ONE_NODE.encode() + b"#" * (MAX_BYTES - len(ONE_NODE))).ok


def test_a_conflict_on_the_first_line_is_named() -> None:
    assert "merge conflict" in problem("<<<<<<< HEAD\nversion: 1\n=======\n").message


def test_a_key_that_stands_twice_is_named_with_the_line_of_the_first() -> None:
    found = problem(STEP + "          command: other\n")
    assert (found.line, found.column, found.kind) == (9, 11, Kind.DUPLICATE_KEY)
    assert "line 8" in found.message


def test_one_key_in_two_spellings_stands_twice() -> None:
    text = ONE_NODE + "  machine-type: a\n  machineType: b\n"
    assert [(each.line, each.kind) for each in read(text).errors] == [(6, Kind.DUPLICATE_KEY)]


def test_anchors_aliases_and_merges_work() -> None:
    text = "version: 1\ntype: multi-grpc\nworker: &w {command: a, count: 2}\nparameter-server: {<<: *w, command: b}\n"
    assert [(group.command, group.count) for group in only(text).specification.groups] == [("a", 2), ("b", 2)]


def test_a_merge_of_what_is_no_mapping_is_an_error() -> None:
    assert problem(ONE_NODE + "  <<: x\n").line == 5


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_ends_give_the_same_lines(end: str) -> None:
    found = problem((ONE_NODE + "retries: many\n").replace("\n", end))
    assert (found.line, found.column) == (5, 10)


@pytest.mark.parametrize("mark", ["\x85", "\u2028"])
def test_only_line_ends_that_editors_know_count_as_lines(mark: str) -> None:
    found = problem(f"{ONE_NODE}project: 'a{mark}b'\nretries: many\n")
    assert found.line == 6


def test_a_byte_order_mark_is_no_problem() -> None:
    assert not read(b"\xef\xbb\xbf" + ONE_NODE.encode()).problems


def test_columns_count_characters() -> None:
    assert problem("version: 1\ntype: single\nworker: {container: é😀, command: x, count: y}\n").column == 44


def test_a_comment_and_an_indented_file_change_nothing() -> None:
    text = "# here\n\n" + "".join(f"    {line}\n" for line in ONE_NODE.splitlines())
    assert only(text).line == 5
