import pytest

from fer_pipeline.data.emotions import FER2013, KNOWN, LabelEncoder, canonical_emotion

CODES = {str(code): name for code, name in enumerate(FER2013)}


def test_codes_are_those_of_fer2013():
    assert CODES == {
        "0": "angry",
        "1": "disgust",
        "2": "fear",
        "3": "happy",
        "4": "sad",
        "5": "surprise",
        "6": "neutral",
    }


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("anger", "angry"),
        ("Disgusted", "disgust"),
        ("AFRAID", "fear"),
        ("fearful", "fear"),
        (" happiness ", "happy"),
        ("joy\r", "happy"),
        ("\tSadness", "sad"),
        ("surprised", "surprise"),
        ("Calm", "neutral"),
        ("contemptuous", "contempt"),
        *((name, name) for name in KNOWN),
        *((name.upper(), name) for name in KNOWN),
    ],
)
def test_synonyms_case_and_space_lead_to_one_name(said, meant):
    assert canonical_emotion(said) == meant


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("hapy", "did you mean happy?"),
        ("suprise", "did you mean surprise?"),
        ("happines", "did you mean happiness?"),
        ("xyz", "expected one of angry, disgust, fear, happy, sad, surprise, neutral, contempt"),
        ("", "expected one of angry, disgust, fear, happy, sad, surprise, neutral, contempt"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(said, hint):
    with pytest.raises(ValueError, match="unknown emotion") as raised:
        canonical_emotion(said)
    assert str(raised.value).startswith(f"unknown emotion {said!r}: {hint}")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("3", "happy"),
        (" 3 ", "happy"),
        ("Happiness", "happy"),
        ("7", None),
        ("-1", None),
        ("03", None),
        ("3.0", None),
        ("\N{ARABIC-INDIC DIGIT THREE}", None),
        ("", None),
        ("face", None),
    ],
)
def test_a_label_is_a_code_or_a_name(text, meant):
    assert LabelEncoder(CODES, FER2013).find_emotion(text) == meant


def test_codes_mean_what_the_source_says_they_mean():
    reference_e = {"0": "angry", "1": "disgust", "2": "sad", "3": "surprise", "4": "happy"}
    labels = LabelEncoder(reference_e, list(reference_e.values()))
    assert [labels.find_emotion(code) for code in "01234567"] == [
        *("angry", "disgust", "sad", "surprise", "happy"),
        *(None, None, None),
    ]


def test_a_subset_of_classes_is_renumbered_in_its_own_order():
    labels = LabelEncoder(CODES, ["surprise", "angry", "happy"])
    assert {name: labels.find_class_index(name) for name in KNOWN} == {
        "angry": 1,
        "disgust": None,
        "fear": None,
        "happy": 2,
        "sad": None,
        "surprise": 0,
        "neutral": None,
        "contempt": None,
    }
