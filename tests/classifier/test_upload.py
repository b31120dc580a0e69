"""The upload protocol: every message gets one reply, and no limit can be passed."""

import pytest

from nebula_utils.classifier import upload
from nebula_utils.classifier.upload import WaysIn, clean_name


class Browser:
    """Play the browser: send messages, collect the replies and what arrived."""

    def __init__(self, **limits: object) -> None:
        self.replies: list[dict] = []
        self.got: list[tuple] = []
        self.ways = WaysIn(self, **limits)
        self.ways.send = self.replies.append

    def __getattr__(self, name: str) -> object:
        """Note every call of the page."""
        return lambda *given: self.got.append((name, *given))

    def say(self, *buffers: bytes, **content: object) -> str:
        """Send a message; return the reply's kind."""
        self.ways._answer(None, content, [memoryview(b) for b in buffers])
        return self.replies[-1]["kind"]


def test_pieces_become_a_file() -> None:
    """A file arrives whole, under its cleaned name, and is not kept."""
    page = Browser()
    page.say(kind="begin")
    page.say(kind="open", name="../../etc/m42.jpg", size=6, token=7)
    page.say(b"abc", kind="piece")
    page.say(b"def", kind="piece")
    page.say(kind="close")
    assert page.say(kind="end", left=2) == "ok"
    assert page.got == [("begin",), ("take", "m42.jpg", b"abcdef"), ("end", 2)]
    assert page.ways._data == b"" and len(page.replies) == 6
    assert page.replies[1]["token"] == 7


def test_limits_hold_without_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Size, the sum of the pieces and the number of files are checked here too."""
    monkeypatch.setattr(upload, "MAX_FILES", 2)
    page = Browser(max_bytes=10)
    page.say(kind="begin")
    assert page.say(kind="open", name="a", size=11) == "refused"
    assert "above" in page.replies[-1]["reason"]
    assert page.say(kind="open", name="b", size=3) == "ok"
    assert page.say(b"x" * 11, kind="piece") == "refused"
    assert page.say(kind="open", name="c", size=3) == "ok"
    assert page.say(kind="open", name="d", size=3) == "refused"
    page.ways.max_bytes = page.ways.max_files = 10**9  # as a browser could
    assert page.say(kind="begin") == "ok" and page.ways._left == 2
    refused = [given[1] for given in page.got if given[0] == "refuse"]
    assert refused == ["a", "d"]  # they stand among the answers, beside no old one


def test_paths_are_refused_where_they_may_not_be_typed() -> None:
    """A browser that claims the right to read paths does not get it."""
    page = Browser()
    page.ways.allow_paths = True
    assert page.say(kind="path", path="/etc/passwd") == "refused" and page.got == []
    mine = Browser(allow_paths=True)
    assert mine.say(kind="path", path="m42.jpg") == "ok"


@pytest.mark.parametrize(
    "content",
    [{}, {"kind": "piece"}, {"kind": "open"}, {"kind": "row"}, {"kind": 3}],
)
def test_nonsense_gets_a_reply(content: dict) -> None:
    """A message out of step is refused, without an exception."""
    assert Browser().say(**content) == "refused"


def test_a_failing_receiver_is_answered() -> None:
    """An error on this side becomes a reason that tells nothing of the inside."""
    page = Browser()
    page.take = lambda name, data: 1 / 0
    page.say(kind="begin")
    page.say(kind="open", name="a", size=0)
    assert page.say(kind="close") == "ok"
    assert page.got[-1][:2] == ("refuse", "a") and "zero" not in page.got[-1][2]


def test_large_files_only_on_ones_own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 MB in one's notebook and one's own page, 60 MB where others come."""
    assert upload.get_max_bytes() == 500_000_000
    monkeypatch.setenv("NEBULA_SERVED", "1")
    assert upload.get_max_bytes() == 500_000_000
    monkeypatch.setenv("NEBULA_PUBLIC", "1")
    assert upload.get_max_bytes() == 60_000_000


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("m42.jpg", "m42.jpg"),
        ("..\\..\\m42.jpg", "m42.jpg"),
        ("../", ".."),
        ("", "picture"),
        ("a\x00b\nc\u202egnp.jpg", "abcgnp.jpg"),
        ("Überriese 星雲.png", "Überriese 星雲.png"),
    ],
)
def test_clean_name(given: str, shown: str) -> None:
    """Folders and characters that can't be seen are taken out of a name."""
    assert clean_name(given) == shown


def test_a_long_name_is_shortened() -> None:
    """Three hundred letters keep their beginning and their suffix."""
    shown = clean_name("x" * 300 + ".jpg")
    assert len(shown) == 80 and shown.endswith("xxx.jpg")
