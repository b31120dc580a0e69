"""The command line: help, exit statuses, and where results and messages go."""

import io
import json
import math
import subprocess
import sys
import types

import pandas as pd
import pytest

from nebula_utils import errors
from nebula_utils.workflow import answers, cli, commands
from nebula_utils.workflow.commands import COMMANDS

SUBCOMMANDS = [name for name in COMMANDS if " " not in name]


def _nebula(*words):
    command = [sys.executable, "-m", "nebula_utils", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def _fake_module(monkeypatch, name, **functions):
    module = types.ModuleType(f"nebula_utils.{name}")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, f"nebula_utils.{name}", module)
    monkeypatch.setattr(f"nebula_utils.{name}", module, raising=False)


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
def classifier(monkeypatch):
    """Fake a classifier that answers by the file name."""
    _fake_module(
        monkeypatch, "classifier.classifier", load_classifier=lambda _: _Classifier()
    )


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
def test_resolve(names, status, monkeypatch, capsys):
    """One line a name, for people and for programs."""
    _fake_module(monkeypatch, "catalogue.table", as_record=RECORDS.__getitem__)
    assert cli.main(["resolve", "--json", *names]) == status
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [RECORDS[name] for name in names]
    assert cli.main(["resolve", *names]) == status
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == len(names)
    assert ("Sh2-155: emission" in shown) == ("S155" in names)
    assert shown.count("did you mean M 42?") == names.count("M4Z")


def test_backbone_prints_its_folder_alone(monkeypatch, capsys, tmp_path):
    """So that $(nebula backbone) works in a script."""
    _fake_module(
        monkeypatch, "features.backbone", prepare_backbone=lambda name: tmp_path / name
    )
    assert cli.main(["backbone", "net"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'net'}\n"


def test_extract_lists_what_it_left_out(monkeypatch, capsys, tmp_path):
    """On stderr, with status 1."""
    calls = []

    def extract(*given):
        calls.append(given)
        return [("bad.jpg", "truncated")]

    _fake_module(monkeypatch, "features.extraction", extract_to_npz=extract)
    out = tmp_path / "f.npz"
    words = ["extract", str(tmp_path), "--out", str(out), "--engine", "fast"]
    assert cli.main(words) == 1
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    assert shown.err == "left out: bad.jpg: truncated\n"
    assert calls == [(tmp_path, out, "mobilenet_v1_100_224", "fast", None, None, None)]


def test_extract_of_nothing_is_status_2(capsys, tmp_path):
    """The folder's name is in the message."""
    words = ["extract", str(tmp_path / "gone"), "--out", "f.npz"]
    assert cli.main(words) == 2
    assert "gone does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["fetch"], ["fetch", "stellarium"]])
def test_fetch_takes_stellarium_by_default(words, monkeypatch, capsys, tmp_path):
    """And prints the folder."""
    _fake_module(monkeypatch, "dataset.stellarium", fetch_textures=lambda: tmp_path)
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"


def test_fetch_photos_counts_pictures_and_nebulae(monkeypatch, capsys):
    """A quick check of one's own class folders."""
    manifest = pd.DataFrame({"label": ["dark"] * 3, "nebula": ["B 33", "B 33", "B 68"]})
    _fake_module(monkeypatch, "dataset.photos", load_photos=lambda folder: manifest)
    assert cli.main(["fetch", "photos", "mine"]) == 0
    assert capsys.readouterr().out == "dark: 3 images of 2 nebulae\n"


def test_fetch_photos_of_nothing_is_status_2(monkeypatch, capsys):
    """An empty folder is no success."""
    empty = pd.DataFrame({"label": [], "nebula": []})
    _fake_module(monkeypatch, "dataset.photos", load_photos=lambda folder: empty)
    assert cli.main(["fetch", "photos", "mine"]) == 2


def test_fetch_hips_hands_its_options_on(monkeypatch):
    """The module defines them; its status is ours."""
    _fake_module(
        monkeypatch,
        "dataset.hips",
        add_arguments=lambda parser: parser.add_argument("--dry-run", type=int),
        run=lambda args: args.dry_run,
    )
    assert cli.main(["fetch", "hips", "--dry-run", "1"]) == 1


def test_app_without_a_model_says_what_to_do(monkeypatch, capsys, tmp_path):
    """Rather than serving a page that fails."""
    (tmp_path / "06_classifier.ipynb").touch()
    monkeypatch.setattr(commands.config, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(commands.config, "MODEL", tmp_path)
    assert cli.main(["app"]) == 2
    assert "make reproduce" in capsys.readouterr().err


def test_headline_numbers(tmp_path):
    """With their intervals; an incomplete file says less."""
    score = {"value": 0.71, "low": 0.66, "high": 0.76}
    heads = {"robust": {"balanced_accuracy": score, "flip_rate": {"grey": score}}}
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"heads": heads}))
    assert commands.describe_metrics(path) == [
        "robust head: balanced accuracy 0.710 [0.660, 0.760], "
        "flips 0.710 [0.660, 0.760]"
    ]
    path.write_text("{")
    assert commands.describe_metrics(path) == []


def test_run_writes_provenance_and_prints_the_report(monkeypatch, capsys, tmp_path):
    """What is known of notebooks that did not run is kept."""
    from nebula_utils.workflow import pipeline

    step = pipeline.Step(tmp_path / "05_x.ipynb", {}, {"SEED": 3, "BACKBONE": "net"})
    run = pipeline.Run("05_x", 1.25, skipped=False)
    monkeypatch.setattr(pipeline, "plan_run", lambda *_: [step])
    monkeypatch.setattr(pipeline, "run_steps", lambda *_, force: [run])
    _fake_module(
        monkeypatch,
        "features.backbone",
        resolve_backbone=lambda name: tmp_path / name,
        compute_weights_sha256=lambda folder: f"hash of {folder.name}",
    )
    earlier = {"parameters": {"04_y": {"K": 5}}, "wall_seconds": {"04_y": 2.0}}
    (tmp_path / "provenance.json").write_text(json.dumps(earlier))
    assert cli.main(["run", "--out", str(tmp_path)]) == 0
    assert f"report: {tmp_path / 'runs'}" in capsys.readouterr().out
    written = json.loads((tmp_path / "provenance.json").read_text("utf-8"))
    assert written["wall_seconds"] == {"04_y": 2.0, "05_x": 1.25}
    assert written["parameters"]["04_y"] == {"K": 5}
    assert written["seeds"] == {"05_x.SEED": 3}
    assert written["weights_sha256"] == {"net": "hash of net"}


def test_slow_arguments_are_only_listed_when_asked_for(monkeypatch):
    """`nebula classify` need not import what `fetch hips` takes."""
    _fake_module(monkeypatch, "dataset.hips")  # without add_arguments
    cli.build_parser(["classify", "a.jpg"])
    with pytest.raises(AttributeError):
        cli.build_parser(["fetch", "hips"])
