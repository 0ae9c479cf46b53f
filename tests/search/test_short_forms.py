"""Short forms of names: the service's own list, and an operator's file."""

from pathlib import Path

import pytest

from app.locality.short_forms import short_forms
from app.settings import InvalidSettingsError, Settings


def test_a_name_has_its_short_forms_and_a_short_form_its_names() -> None:
    """Bert may be Albert or Robert, but Albert is not Robert."""
    groups = short_forms()
    assert "bob" in groups["robert"]
    assert {"albert", "robert"} <= groups["bert"]
    assert "robert" not in groups["albert"]


def test_a_file_adds_to_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the operator's file add short forms; accents, capitals and comments make no difference."""
    further = tmp_path / "forms.txt"
    further.write_text("# ours\nNomvuyisekó: Nomvu, Vuyi  # both\n\nrobert: bobo\n", "utf-8")
    monkeypatch.setenv("PATIENTS_SHORT_FORMS_FILE", str(further))
    groups = Settings.load().locality.short_forms
    assert groups["vuyi"] >= {"nomvuyiseko"}
    assert {"bob", "bobo"} <= groups["robert"]


@pytest.mark.parametrize("content", [b"robert", b"robert:", b": bob", b"\xff\xfe"])
def test_an_unusable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """A file with another format stops the service at its start, and the message names the setting."""
    further = tmp_path / "forms.txt"
    further.write_bytes(content)
    monkeypatch.setenv("PATIENTS_SHORT_FORMS_FILE", str(further))
    with pytest.raises(InvalidSettingsError, match="PATIENTS_SHORT_FORMS_FILE"):
        Settings.load()


def test_a_missing_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that does not exist stops the service at its start."""
    monkeypatch.setenv("PATIENTS_SHORT_FORMS_FILE", str(tmp_path / "none.txt"))
    with pytest.raises(InvalidSettingsError, match="readable file"):
        Settings.load()
