"""What an answer says in plain words, and what it never says."""

import pytest
from fake_classifier import SURE
from test_widget import make_result

from nebula_utils.classifier.texts import (
    describe_proportion,
    describe_result,
    format_share,
    guess_name,
    look_up,
)


@pytest.mark.parametrize(
    ("changes", "headline", "word"),
    [
        ({"label": "other"}, "This does not look like a nebula", "galaxy"),
        (
            {"confident": False, "candidates": ("dark", "emission", "planetary")},
            "Not sure: perhaps a dark nebula",
            "It may also be an emission nebula or a planetary nebula.",
        ),
        ({"confident": False}, "Not sure: perhaps a dark nebula", "90 %"),
        ({"grey_label": "emission"}, "This looks like a dark nebula", "with care"),
        ({"stability": 0.5}, "This looks like a dark nebula", "keeps only 50 %"),
        ({"is_grey": True}, "This looks like a dark nebula", "played no part"),
    ],
)
def test_words(changes: dict, headline: str, word: str) -> None:
    """Doubt, no nebula, and colour that decides are each said."""
    words = describe_result(make_result(**changes), SURE)
    assert words.headline == headline and word in " ".join(words.sentences)


def test_a_sure_answer_says_what_that_was_worth() -> None:
    """The sentence repeats what the model measured, and on which pictures."""
    words = describe_result(make_result(), SURE)
    assert words.sentences[0] == (
        "Of pictures by other photographers that look this sure, nine in ten were "
        "right."
    )
    half = SURE._replace(accuracy=0.47, measured_on="drawings")
    assert describe_result(make_result(), half).sentences[0] == (
        "Of drawings that look this sure, 47 % were right."
    )


def test_shares_never_claim_certainty() -> None:
    """Neither 0 nor 100 %, and tenths only where they are true."""
    assert format_share(0.9999) == "over 99 %" and format_share(0.0) == "under 1 %"
    assert describe_proportion(0.91) == "nine in ten"
    assert describe_proportion(0.96) == "96 %"
    assert describe_proportion(0.85) == "85 %"


def test_look_up_says_whether_they_agree() -> None:
    """The catalogue's type is compared with the classifier's."""
    assert look_up("  ") == ""
    assert look_up("M 42", make_result("emission")).endswith("The classifier agrees.")
    assert "does not agree: it says a dark nebula" in look_up("M 42", make_result())
    unsure = make_result(confident=False, candidates=("dark", "emission"))
    assert "finds that possible" in look_up("M 42", unsure)
    assert "does not know “Nebbish 7”" in look_up("Nebbish 7")


def test_look_up_uses_the_names_that_people_know() -> None:
    """M 78 is not Casper, and M 31 is a galaxy, not a misspelt M 3-1."""
    assert look_up("M 78").startswith("NGC 2068 (M 78) is a reflection nebula")
    assert "galaxies" in look_up("M 31") and "M 3-1" not in look_up("M 31")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("M42_2023-01-05_stack.fits", "NGC 1976"),
        ("ngc7000 ha oiii 20h.tif", "NGC 7000"),
        ("horsehead_nebula_LRGB.fits.gz", "B 33"),
        ("Sh2-155_final_v3.jpg", "Sh2-155"),
        ("IMG_1234.JPG", ""),
        ("a1.jpg", ""),
        ("light_0001.fit.fz", ""),
        ("North.png", ""),
        ("", ""),
    ],
)
def test_a_name_is_guessed_from_the_file(file: str, name: str) -> None:
    """Numbers of catalogues and names of two words are found, plain words are not."""
    assert guess_name(file) == name
