"""Which answer a request asks for: by its query, or by what it accepts."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fissura.serving.problems import Refused
from fissura.serving.query import MEDIA, MOST_RANGES, ImageQuery, parse_query


def form(accept: str | None, answer: str | None = None) -> str:
    return parse_query({"answer": answer}, accept).form


class TestAccept:
    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            (None, "json"), ("", "json"), ("*/*", "json"), ("application/json", "json"),
            ("application/*", "json"),
            ("image/png", "mask"), ("image/*", "mask"), ("image/jpeg", "overlay"),
            ("IMAGE/PNG ; Q=0.3", "mask"),
            ("application/problem+json", "json"), ("application/zip", "json"),
            # what it likes better, and of two that it likes alike the first
            ("image/png;q=0.5, image/jpeg", "overlay"), ("image/jpeg, image/png", "overlay"),
            ("image/png, application/json", "mask"), ("application/json, image/png", "json"),
            ("*/*;q=0.1, image/jpeg;q=0.2", "overlay"), ("text/html, */*;q=0.8", "json"),
            ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "mask"),
            # the most specific range decides (RFC 9110, section 12.5.1)
            ("application/json;q=0, */*", "mask"), ("*/*, application/json;q=0", "mask"),
            ("image/*, image/png;q=0", "overlay"), ("image/png;q=0.1, image/*;q=0.9", "overlay"),
            ("text/plain, image/png", "mask"),
            # what is no number makes its own range unacceptable, and no other
            ("image/png;q=nan, application/json;q=0.1", "json"), ("image/png;q=x, image/jpeg", "overlay"),
            ("image/png;q=inf, image/jpeg;q=0.1", "overlay"), ("image/png;q=9, image/jpeg", "mask"),
        ],
    )  # fmt: skip
    def test_names_the_form(self, accept: str | None, expected: str) -> None:
        assert form(accept) == expected

    @pytest.mark.parametrize(
        "accept",
        [
            "text/html", "image/webp", "*/*;q=0", "image/png;q=0", "application/json;q=-1", "json", "image",
            "/", ",", ";q=1", "*",
        ],
    )  # fmt: skip
    def test_that_allows_no_form_is_refused(self, accept: str) -> None:
        with pytest.raises(Refused) as error:
            form(accept)
        assert error.value.problem.status == 406
        assert repr(accept) in error.value.problem.detail

    def test_matters_only_where_no_answer_is_named(self) -> None:
        assert form("image/png", answer="json") == "json"
        assert form("text/html", answer="overlay") == "overlay"

    @given(
        st.text(max_size=200)
        | st.lists(st.sampled_from([*MEDIA.values(), "*/*", "q=", ";", ",", "q=0"])).map("".join)
    )
    @example("," * 10**6)
    @example(";" * 10**6)
    @example("image/png;q=" + "9" * 5000)
    @example("a/b, " * (MOST_RANGES + 1) + "image/png")
    def test_of_any_text_names_a_form_or_is_refused(self, accept: str) -> None:
        try:
            found = form(accept)
        except Refused as refused:
            found, text = str(refused.problem.status), str(refused)
            assert len(text) < 500
        assert found in {*MEDIA, "406"}

    @given(
        st.dictionaries(
            st.sampled_from(
                ["application/json", "image/png", "image/jpeg", "image/*", "application/*", "*/*", "text/a"]
            ),
            st.sampled_from([0.0, 0.2, 0.5, 1.0]),
            min_size=1,
        )
    )
    def test_gives_what_a_literal_reading_gives(self, ranges: dict[str, float]) -> None:
        def quality(media: str) -> float:
            for name in (media, media.split("/")[0] + "/*", "*/*"):
                if name in ranges:
                    return ranges[name]
            return 0.0

        best = max(quality(media) for media in MEDIA.values())
        header = ", ".join(f"{media};q={value}" for media, value in ranges.items())
        if best == 0:
            with pytest.raises(Refused):
                form(header)
        else:
            assert quality(MEDIA[form(header)]) == best  # type: ignore[index]


class TestTheTerms:
    def test_are_the_model_s_own_where_none_are_named(self) -> None:
        assert parse_query({}, None) == ImageQuery()

    def test_are_those_of_the_query(self) -> None:
        asked = parse_query({"answer": "mask", "mm_per_pixel": 0.5, "threshold": 0.25}, None)
        assert asked == ImageQuery(form="mask", mm_per_pixel=0.5, threshold=0.25)

    @pytest.mark.parametrize(
        "query",
        [
            {"answer": "svg"}, {"threshold": 1.5}, {"threshold": -0.1}, {"threshold": math.nan},
            {"mm_per_pixel": 0},
            {"mm_per_pixel": math.inf}, {"mm_per_pixel": "wide"},
        ],
    )  # fmt: skip
    def test_that_break_a_rule_are_refused(self, query: dict[str, str | float | None]) -> None:
        with pytest.raises(Refused) as error:
            parse_query(query, None)
        assert error.value.problem.status == 422
        assert next(iter(query)) in error.value.problem.detail

    @given(st.floats(0, 1), st.none() | st.floats(1e-6, 1e5))
    def test_cross_processes_as_they_are(self, threshold: float, scale: float | None) -> None:
        asked = ImageQuery(form="probability", mm_per_pixel=scale, threshold=threshold)
        assert ImageQuery.load(asked.plain(), source="question") == asked
