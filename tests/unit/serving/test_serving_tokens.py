"""The token: where it comes from, whom it lets in, and where it never shows."""

import ast
import hmac
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fissura.core.errors import SpecError
from fissura.serving import tokens
from fissura.serving.problems import Refused
from fissura.serving.tokens import (
    LEAST_LENGTH,
    check_exposure,
    check_token,
    is_loopback,
    read_token,
    token_digest,
    without_token_variable,
)

ANY = "0.0.0.0"  # noqa: S104
TOKEN = "correct-horse-battery-staple"  # noqa: S105


def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "token"
    path.write_bytes(content)
    return path


class TestATokenIsRead:
    @pytest.mark.parametrize("content", [TOKEN, f"{TOKEN}\n", f"  {TOKEN}\r\n"])
    def test_from_a_file_without_the_line_s_end(self, tmp_path: Path, content: str) -> None:
        assert read_token(file(tmp_path, content.encode()), {}) == TOKEN

    def test_from_the_variable_and_the_file_comes_first(self, tmp_path: Path) -> None:
        assert read_token(None, {"FISSURA_TOKEN": f"{TOKEN}\n"}) == TOKEN
        path = file(tmp_path, b"another-token-of-20-characters")
        assert read_token(path, {"FISSURA_TOKEN": TOKEN}) == "another-token-of-20-characters"

    def test_where_there_is_one(self) -> None:
        assert read_token(None, {}) is None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "short",
            "x" * (LEAST_LENGTH - 1),
            "with a space in the middle",
            "ü" * 20,
            "tab\t" * 9,
            "\0" * 20,
        ],
    )
    def test_unless_it_is_none_and_its_text_is_in_no_error(self, tmp_path: Path, text: str) -> None:
        for path, environment in ((None, {"FISSURA_TOKEN": text}), (file(tmp_path, text.encode()), {})):
            with pytest.raises(SpecError, match="a token has 16 printable characters or more") as error:
                read_token(path, environment)
            assert not text.strip() or text.strip() not in str(error.value)
            assert error.value.__cause__ is None

    def test_unless_the_file_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="No such file"):
            read_token(tmp_path / "none", {})
        with pytest.raises(SpecError, match="cannot be read"):
            read_token(tmp_path, {})
        secret = b"\xff\xfe" + TOKEN.encode()
        with pytest.raises(SpecError, match="it is no text") as error:
            read_token(file(tmp_path, secret), {})
        assert TOKEN not in str(error.value)
        assert error.value.__suppress_context__

    def test_no_further_than_a_token_can_go(self, tmp_path: Path) -> None:
        assert len(read_token(file(tmp_path, b"x" * 10**6), {}) or "") == tokens.MOST_BYTES


class TestATokenIsAsked:
    def test_of_nobody_where_there_is_none(self) -> None:
        check_token(None, None)
        check_token(None, "anything")

    @pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN} "])
    def test_as_a_bearer(self, header: str) -> None:
        check_token(token_digest(TOKEN), header)

    @pytest.mark.parametrize(
        "header",
        [
            None, "", "Bearer", "Bearer ", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer x{TOKEN}",
            f"Bearer{TOKEN}",
            f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}", f"Bearer {TOKEN},{TOKEN}", "Bearer ü",
            "Bearer \x80\xff",
            f"Bearer {'x' * 100_000}",
        ],
    )  # fmt: skip
    def test_and_anything_else_is_refused_without_a_word_of_it(self, header: str | None) -> None:
        with pytest.raises(Refused) as error:
            check_token(token_digest(TOKEN), header)
        problem = error.value.problem
        assert (problem.status, problem.retry_after) == (401, None)
        text = str(error.value)
        assert TOKEN not in text
        assert token_digest(TOKEN) not in text
        assert problem.detail == ("none was sent" if header is None else "another one was sent")

    @given(st.text(st.characters(max_codepoint=255), max_size=60))
    def test_by_any_header_without_another_error(self, header: str) -> None:
        with pytest.raises(Refused):
            check_token(token_digest(TOKEN), header)

    def test_not_by_its_digest(self) -> None:
        with pytest.raises(Refused):
            check_token(token_digest(TOKEN), f"Bearer {token_digest(TOKEN)}")

    def test_in_a_time_that_tells_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared: list[tuple[str, str]] = []
        real = hmac.compare_digest

        def noted(given: str, kept: str) -> bool:
            compared.append((given, kept))
            return real(given, kept)

        monkeypatch.setattr(hmac, "compare_digest", noted)
        check_token(token_digest(TOKEN), f"Bearer {TOKEN}")
        with pytest.raises(Refused):
            check_token(token_digest(TOKEN), "Basic wrong")
        with pytest.raises(Refused):
            check_token(token_digest(TOKEN), None)
        assert [kept for _, kept in compared] == [token_digest(TOKEN)] * 3
        # and nothing of it is compared in another way
        tree = ast.parse(inspect.getsource(check_token))
        equals = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
        assert not [text for text in equals if "given" in text]


class TestAServiceThatOthersReach:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
    def test_is_none_on_this_machine_alone(self, host: str) -> None:
        assert is_loopback(host)
        check_exposure(host, None)

    @pytest.mark.parametrize("host", [ANY, "::", "192.0.2.1", "", "example.org", "127.0.0.1.example.org"])
    def test_has_a_token(self, host: str) -> None:
        assert not is_loopback(host)
        check_exposure(host, TOKEN)
        with pytest.raises(SpecError, match="needs a token: none was given") as error:
            check_exposure(host, None)
        assert "FISSURA_TOKEN" in str(error.value)


def test_what_is_kept_of_a_token_is_not_the_token() -> None:
    assert TOKEN not in token_digest(TOKEN)
    assert len(token_digest(TOKEN)) == 64


def test_it_is_in_no_environment_of_a_process_that_is_started_for_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FISSURA_TOKEN", TOKEN)
    with without_token_variable():
        command = [sys.executable, "-c", "import os; print(*os.environ.values())"]
        assert TOKEN not in subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert os.environ["FISSURA_TOKEN"] == TOKEN
