"""The upload protocol: every message gets one reply, and no limit can be passed."""

import pytest

from nebula_utils.classifier.upload import PhotoDrop, clean_name


class Page:
    """Play the browser: send messages, collect the replies and what arrived."""

    def __init__(self, **limits: int) -> None:
        self.replies: list[dict] = []
        self.got: list[tuple[str, bytes]] = []
        self.drop = PhotoDrop(lambda *file: self.got.append(file), **limits)
        self.drop.send = self.replies.append

    def say(self, *buffers: bytes, **content: object) -> str:
        """Send a message; return the reply's kind."""
        self.drop._answer(None, content, [memoryview(b) for b in buffers])
        return self.replies[-1]["kind"]


def test_pieces_become_a_file() -> None:
    """A file arrives whole, under its cleaned name, and is not kept."""
    page = Page()
    page.say(kind="begin", n=1)
    page.say(kind="open", name="../../etc/m42.jpg", size=6)
    page.say(b"abc", kind="piece")
    page.say(b"def", kind="piece")
    page.say(kind="close")
    assert page.say(kind="end") == "ok"
    assert page.got == [("m42.jpg", b"abcdef")]
    assert page.drop._data == b"" and len(page.replies) == 6


def test_limits_hold_without_the_browser() -> None:
    """Size, the sum of the pieces and the number of files are checked here too."""
    page = Page(max_bytes=10, max_files=2)
    page.say(kind="begin", n=99)
    assert page.say(kind="open", name="a", size=11) == "refused"
    assert "above" in page.replies[-1]["reason"]
    assert page.say(kind="open", name="b", size=3) == "ok"
    assert page.say(b"x" * 11, kind="piece") == "refused"
    assert page.say(kind="open", name="c", size=3) == "refused"
    page.drop.max_bytes = page.drop.max_files = 10**9  # as a browser could
    assert page.say(kind="begin", n=99) == "ok" and page.drop._left == 2
    assert page.got == []


@pytest.mark.parametrize(
    "content",
    [{}, {"kind": "piece"}, {"kind": "open"}, {"kind": "begin", "n": "x"}, {"kind": 3}],
)
def test_nonsense_gets_a_reply(content: dict) -> None:
    """A message out of step is refused, without an exception."""
    page = Page()
    assert page.say(**content) == "refused"


def test_a_failing_receiver_is_answered() -> None:
    """An error on this side reaches the page as a reply that tells nothing inside."""
    page = Page()
    page.drop._receive = lambda name, data: 1 / 0
    page.say(kind="begin", n=1)
    page.say(kind="open", name="a", size=0)
    assert page.say(kind="close") == "refused"
    assert "zero" not in page.replies[-1]["reason"]


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
