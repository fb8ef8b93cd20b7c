"""Whose pages may ask: no site changes what is served, and none makes its own name mean this machine."""

from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers

from fissura.serving.problems import Refused
from fissura.serving.sites import check_host, check_site
from serving_door import Answer, Door, head, listening, sent

TOKEN = "correct-horse-battery-staple"  # noqa: S105
OURS = "127.0.0.1:8000"


def headers(*fields: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.encode(), value.encode()) for name, value in fields])


class TestAName:
    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            OURS,
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "[::1]:8000",
            "[::1]",
            "127.8.9.1:1",
        ],
    )
    def test_that_is_this_machine_everywhere_is_answered(self, host: str) -> None:
        check_host(headers(("host", host)))

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example",
            "0.0.0.0:80", "evil@localhost", "localhost@evil", "localhost:80:80", "127.0.0.1/x", "[", "[::]",
            "", " ", "2130706433", "192.168.1.5", "localhost evil", "evillocalhost",
        ],
    )  # fmt: skip
    def test_that_its_owner_may_let_be_this_machine_is_refused(self, host: str) -> None:
        with pytest.raises(Refused) as refused:
            check_host(headers(("host", host)))
        assert (refused.value.problem.kind, refused.value.problem.status) == ("cross-site", 403)

    def test_is_looked_at_wherever_it_stands(self) -> None:
        with pytest.raises(Refused):
            check_host(headers(("host", OURS), ("host", "evil.example")))


FOREIGN = [
    [("origin", "https://evil.example")],
    [("origin", "null")],
    [("origin", "")],
    [("origin", "http://127.0.0.1:8001")],
    [("origin", "http://127.0.0.1")],
    [("origin", "http://127.0.0.1:8000.evil.example")],
    [("origin", "http://evil@127.0.0.1:8000")],
    [("origin", "file://")],
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "same-site")],
    [("sec-fetch-site", "")],
    [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "cross-site"), ("origin", f"http://{OURS}")],
    [("origin", f"http://{OURS}"), ("origin", "https://evil.example")],
]
OWN = [
    [],
    [("origin", f"http://{OURS}")],
    [("origin", f"HTTP://{OURS}")],
    [("sec-fetch-site", "same-origin"), ("origin", f"http://{OURS}")],
    [("sec-fetch-site", "none")],
    # a proxy that names this service by another name than the browser does
    [("sec-fetch-site", "same-origin"), ("origin", "https://walls.example")],
]


class TestAPage:
    @pytest.mark.parametrize("fields", FOREIGN)
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    def test_of_another_site_changes_nothing(self, method: str, fields: list[tuple[str, str]]) -> None:
        with pytest.raises(Refused) as refused:
            check_site(method, headers(("host", OURS), *fields))
        assert (refused.value.problem.kind, refused.value.problem.status) == ("cross-site", 403)

    @pytest.mark.parametrize("fields", OWN)
    def test_of_the_service_s_own_and_a_program_may(self, fields: list[tuple[str, str]]) -> None:
        check_site("POST", headers(("host", OURS), *fields))

    @pytest.mark.parametrize(
        ("host", "origin"),
        [
            ("localhost", "http://localhost:80"),
            ("walls.example:443", "https://walls.example"),
            ("[::1]:8", "http://[::1]:8"),
        ],
    )
    def test_is_known_by_its_address_with_or_without_the_port_that_a_scheme_has(
        self, host: str, origin: str
    ) -> None:
        check_site("POST", headers(("host", host), ("origin", origin)))

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_may_ask_what_only_reads_and_is_not_told_the_answer_by_its_browser(self, method: str) -> None:
        check_site(method, headers(("host", OURS), ("origin", "https://evil.example")))


class TestTheService:
    @pytest.fixture(scope="class")
    @classmethod
    def door(cls) -> Iterator[Door]:
        with listening() as door:
            yield door

    def rolled_back(self, door: Door, *fields: str, host: str = OURS) -> Answer:
        fields = ("Content-Type: text/plain", "Content-Length: 2", *fields)
        return sent(door.port, head("POST", "/v1/models/cracks/rollback", *fields, host=host) + b"{}")

    def test_is_rolled_back_by_no_page_of_another_site(self, door: Door) -> None:
        foreign = ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"]
        for field in foreign:
            answer = self.rolled_back(door, field)
            assert (answer.status, answer.kind) == (403, "cross-site")
            assert "access-control" not in answer.head
        assert self.rolled_back(door, host="evil.example").status == 403
        assert door.host.rollbacks == 0
        assert self.rolled_back(door, f"Origin: http://{OURS}", "Sec-Fetch-Site: same-origin").status == 200
        assert door.host.rollbacks == 1

    @pytest.mark.parametrize(
        "path", ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/no"]
    )
    def test_tells_nothing_under_another_name(self, door: Door, path: str) -> None:
        assert sent(door.port, head("GET", path, host="evil.example")).status == 403
        assert sent(door.port, head("GET", f"http://evil.example{path}", host="evil.example")).status == 403

    def test_with_a_token_has_any_name_and_no_more_than_its_own_pages(self) -> None:
        with listening(token=TOKEN) as door:
            bearer = f"Authorization: Bearer {TOKEN}"
            assert sent(door.port, head("GET", "/v1/models", bearer, host="walls.example")).status == 200
            assert self.rolled_back(door, bearer, "Origin: https://evil.example").status == 403
            assert (
                self.rolled_back(door, bearer, "Origin: http://walls.example", host="walls.example").status
                == 200
            )
