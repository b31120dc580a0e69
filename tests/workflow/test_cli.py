"""The command line: help, exit statuses, and where results and messages go."""

import csv
import io
import json
import math
import subprocess
import sys

import pytest

from nebula_utils import errors
from nebula_utils.workflow import answers, cli
from nebula_utils.workflow.commands import COMMANDS

SUBCOMMANDS = [name for name in COMMANDS if " " not in name]


def _nebula(*words):
    command = [sys.executable, "-m", "nebula_utils", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


class _Result:
    def __init__(self, **changes):
        self.answer = {
            "path": "elsewhere",
            "label": "emission",
            "probabilities": {"dark": 0.25, "emission": 0.75},
            "confident": True,
            "candidates": ["emission"],
            "nebula": 0.99,
            "grey_label": "dark",
            "stability": 0.5,
            **changes,
        }

    def as_dict(self):
        return self.answer


class _Classifier:
    def classify(self, path):
        if path.suffix == ".txt":
            raise errors.ImageError("not an image: text")
        return _Result(confident=path.stem != "blurred")


@pytest.fixture
def classifier(fake_module):
    """Fake a classifier that answers by the file name."""
    fake_module("classifier.classifier", load_classifier=lambda *_, **__: _Classifier())


def test_help_lists_every_command():
    """As a user calls it, in a process of its own."""
    done = _nebula("--help")
    assert done.returncode == 0 and done.stderr == ""
    for name in SUBCOMMANDS:
        assert f"\n    {name} " in done.stdout


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_command_has_help(name, capsys):
    """With an example where there is a choice to make."""
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert name == "app" or f"nebula {name} " in shown.split("examples:")[1]


def test_help_needs_neither_tensorflow_nor_pandas():
    """The command line starts at once."""
    code = (
        "import sys; from nebula_utils.workflow import cli, commands\n"
        "cli.build_parser();"
        "print({'tensorflow', 'pandas', 'numpy', 'papermill'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["clasify"],
        ["classify"],
        ["extract", "pictures"],
        ["extract", "pictures", "--out", "features.csv"],
        ["extract", "pictures", "--out", "f.npz", "--engine", "slow"],
        ["app", "--port", "web"],
        ["run", "-p", "NAME"],
        ["fetch", "nowhere"],
    ],
)
def test_wrong_usage_is_status_2_with_nothing_on_stdout(words, capsys):
    """A script that reads stdout gets no help text."""
    try:
        status = cli.main(words)
    except SystemExit as error:
        status = error.code
    assert status == 2
    shown = capsys.readouterr()
    assert shown.out == "" and "usage: nebula" in shown.err


def test_a_missing_notebook_shows_no_traceback():
    """As a user sees it."""
    done = _nebula("run", "77")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("nebula: error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["run", "77", "--debug"], ["--debug", "run", "77"]])
def test_debug_shows_the_traceback(words):
    """Before or after the command."""
    assert "Traceback" in _nebula(*words).stderr


def replace_backbone(monkeypatch, do):
    """Let `nebula backbone` do something else."""
    monkeypatch.setitem(COMMANDS, "backbone", COMMANDS["backbone"]._replace(do=do))


def test_an_unforeseen_error_is_short_too(monkeypatch, capsys):
    """With its kind, and how to see more."""

    def fail(args):
        raise ZeroDivisionError("division by zero")

    replace_backbone(monkeypatch, fail)
    assert cli.main(["backbone"]) == 2
    shown = capsys.readouterr().err
    assert "division by zero (ZeroDivisionError; --debug" in shown


def test_an_interruption_is_status_130(monkeypatch, capsys):
    """As the shell has it for Ctrl-C."""

    def interrupt(args):
        raise KeyboardInterrupt

    replace_backbone(monkeypatch, interrupt)
    assert cli.main(["backbone"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error():
    """`nebula … | head -1` says nothing on stderr."""
    code = (
        "import sys; from nebula_utils.workflow import cli, commands\n"
        "def chatter(args):\n"
        "    while True: print('x' * 1000)\n"
        "kept = commands.COMMANDS['backbone']._replace(do=chatter)\n"
        "commands.COMMANDS['backbone'] = kept\n"
        "sys.exit(cli.main(['backbone']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 141


def test_classify_json_is_one_object_a_line_in_order(classifier, capsys, tmp_path):
    """Names as they were given, an error beside the answers, status 1."""
    paths = ["b c.jpg", "notes.txt", "ä.png", str(tmp_path)]
    assert cli.main(["classify", "--json", *paths]) == 1
    shown = capsys.readouterr()
    records = [json.loads(line) for line in shown.out.splitlines()]
    assert [record["path"] for record in records] == paths
    assert records[0] == {**_Result().as_dict(), "path": "b c.jpg"}
    assert records[1] == {"path": "notes.txt", "error": "not an image: text"}
    assert records[3]["label"] == "emission"  # the fake one's answer to any name
    assert shown.err == ""


def test_classify_takes_folders_and_a_list(classifier, capsys, tmp_path, monkeypatch):
    """A folder stands for its pictures, sorted; - for the lines of stdin."""
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"x.jpg\n\n{tmp_path}\n"))
    assert cli.main(["classify", "--json", str(tmp_path), "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [str(tmp_path / "a.jpg"), str(tmp_path / "b.png")]
    assert [json.loads(line)["path"] for line in lines] == [*found, "x.jpg", *found]


def test_names_can_t_steer_the_terminal(classifier, capsys):
    """Control and direction-changing characters of names are shown, not sent."""
    cli.main(["classify", "a\x1b[2Jb.jpg", "c\u202egpj.txt", "d\re.jpg"])
    shown = capsys.readouterr()
    assert "a\\x1b[2Jb.jpg" in shown.out and "d\\re.jpg" in shown.out
    assert "c\\u202egpj.txt" in shown.err
    assert not set("\x1b\u202e\r") & set(shown.out + shown.err)


def test_classify_speaks_to_people_too(classifier, capsys):
    """Best classes, doubt, the answer without colour; errors on stderr."""
    assert cli.main(["classify", "m42.jpg", "blurred.jpg", "notes.txt"]) == 1
    shown = capsys.readouterr()
    answer = "emission 0.75, dark 0.25; without colour dark, stability 0.50"
    assert shown.out.splitlines() == [
        f"m42.jpg: {answer}",
        f"blurred.jpg: not sure: {answer}",
    ]
    assert shown.err == "notes.txt: not an image: text\n"


@pytest.mark.parametrize(
    ("paths", "status"),
    [(["a.jpg", "b.jpg"], 0), (["a.jpg", "b.txt"], 1), (["a.txt", "b.txt"], 2)],
)
def test_classify_status_counts_the_failures(classifier, paths, status):
    """0 all, 1 some, 2 none could be classified."""
    assert cli.main(["classify", "--json", *paths]) == status


def test_json_never_has_nan():
    """NaN is no JSON; null is."""
    text = answers.to_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": 2}})
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": {"d": 2}}


def test_an_unreadable_file_gives_the_system_s_reason():
    """Without the errno decoration."""

    def classify(path):
        raise PermissionError(13, "Permission denied", str(path))

    record = answers.classify_path(classify, "secret.jpg")
    assert record == {"path": "secret.jpg", "error": "Permission denied"}


RECORDS = {
    "S155": {
        "query": "S155",
        "name": "Sh2-155",
        "type": "emission",
        "ra_deg": 344.2,
        "dec_deg": 62.6,
        "size_arcmin": None,
        "aliases": ["Cave Nebula", "Caldwell 9"],
    },
    "M4Z": {
        "query": "M4Z",
        "error": "no such name; did you mean M 42?",
        "suggestions": ["M 42"],
    },
}


@pytest.mark.parametrize(
    ("names", "status"), [(["S155"], 0), (["S155", "M4Z"], 1), (["M4Z"], 2)]
)
def test_resolve(names, status, fake_module, capsys):
    """One line a name, for people and for programs."""
    fake_module("catalogue.table", as_record=RECORDS.__getitem__)
    assert cli.main(["resolve", "--json", *names]) == status
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [RECORDS[name] for name in names]
    assert cli.main(["resolve", *names]) == status
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) + len(shown.err.splitlines()) == len(names)
    assert ("Sh2-155: emission" in shown.out) == ("S155" in names)
    assert shown.err.count("did you mean M 42?") == names.count("M4Z")


def test_resolve_takes_names_from_stdin(monkeypatch, fake_module, capsys):
    """One name a line; blank lines are nothing."""
    fake_module("catalogue.table", as_record=RECORDS.__getitem__)
    monkeypatch.setattr("sys.stdin", io.StringIO("S155\n\n M4Z \n"))
    assert cli.main(["resolve", "--json", "-"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["query"] for line in lines] == ["S155", "M4Z"]


@pytest.mark.parametrize(
    "place",
    ["05 35 17 -05 23 28", "05:35:17 -05:23:28", "5h35m17s -5d23m28s", "83.82, -5.391"],
)
def test_resolve_near_a_place(place, capsys):
    """Sexagesimal or degrees, the Orion Nebula is nearest, with its distance."""
    assert cli.main(["resolve", "--near", place, "--radius", "0.5deg", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found[0]["name"] == "NGC 1976"
    distances = [record["distance_arcmin"] for record in found]
    assert distances == sorted(distances)
    assert max(distances) <= 30
    assert len(found) > 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["resolve"], "give one"),
        (["resolve", "M 42", "--radius", "1deg"], "goes with --near"),
        (["resolve", "M 42", "--near", "1 1"], "not both"),
        (["resolve", "--near", "here"], "is no place"),
        (["resolve", "--near", "10 95"], "is no place"),
        (["resolve", "--near", "1 1", "--radius", "wide"], "is no radius"),
        (["resolve", "--near", "1 1", "--radius=-1deg"], "is no radius"),
        (["resolve", "--near", "1 1", "--radius", ""], "is no radius"),
        (["list", "--constellation", "Xyz"], "give one of And"),
    ],
)
def test_look_ups_refuse_what_they_cannot_read(argv, message, capsys):
    """A wrong place, radius, constellation or mixture is told, on stderr."""
    assert cli.main(argv) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""


def test_list_has_the_same_rows_in_every_form(capsys):
    """Text, CSV, JSON, VOTable and ECSV hold the dark nebulae that were asked for."""
    from astropy.table import Table

    asked = "list --type dark --constellation oph --min-size 10 --max-size 60".split()
    assert cli.main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert cli.main([*asked, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert cli.main([*asked, "--csv"]) == 0
    names = [r["name"] for r in csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert cli.main([*asked, "--votable"]) == 0
    votable = Table.read(io.BytesIO(capsys.readouterr().out.encode()), format="votable")
    assert [r["name"] for r in rows] == names == list(votable["name"])
    assert cli.main([*asked, "--ecsv"]) == 0
    ecsv = Table.read(capsys.readouterr().out, format="ascii.ecsv")
    assert names == list(ecsv["name"])
    for table in (votable, ecsv):
        assert str(table["size_arcmin"].unit) == "arcmin"
    assert len(lines) == len(names) > 50
    assert {r["type"] for r in rows} == {"dark"}
    assert {r["constellation"] for r in rows} == {"Oph"}
    assert all(10 <= r["size_arcmin"] <= 60 for r in rows)


def test_list_says_where_nothing_fits(capsys):
    """No row is no error, but is said."""
    assert cli.main(["list", "--min-size", "1e9"]) == 0
    assert "no nebula" in capsys.readouterr().err
