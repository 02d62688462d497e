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
    ("text", "expected"),
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
def test_synonyms_case_and_space_lead_to_one_name(text, expected):
    assert canonical_emotion(text) == expected


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hapy", "did you mean happy?"),
        ("suprise", "did you mean surprise?"),
        ("happines", "did you mean happiness?"),
        ("xyz", "expected one of angry, disgust, fear, happy, sad, surprise, neutral, contempt"),
        ("", "expected one of angry, disgust, fear, happy, sad, surprise, neutral, contempt"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_name(name, hint):
    with pytest.raises(ValueError, match="unknown emotion") as raised:
        canonical_emotion(name)
    assert str(raised.value).startswith(f"unknown emotion {name!r}: {hint}")


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_a_label_is_a_code_or_a_name(text, expected):
    assert LabelEncoder(CODES, FER2013).find_emotion(text) == expected


def test_codes_have_the_meanings_of_the_configuration():
    emotion_of_code = {"0": "angry", "1": "disgust", "2": "sad", "3": "surprise", "4": "happy"}
    encoder = LabelEncoder(emotion_of_code, list(emotion_of_code.values()))
    assert [encoder.find_emotion(code) for code in "01234567"] == [
        "angry",
        "disgust",
        "sad",
        "surprise",
        "happy",
        None,
        None,
        None,
    ]


def test_selected_classes_are_numbered_in_their_own_order():
    encoder = LabelEncoder(CODES, ["surprise", "angry", "happy"])
    assert {name: encoder.find_class_index(name) for name in KNOWN} == {
        "angry": 1,
        "disgust": None,
        "fear": None,
        "happy": 2,
        "sad": None,
        "surprise": 0,
        "neutral": None,
        "contempt": None,
    }
