"""The HTTP side of a shopper or host: JSON in, JSON out, problems as exceptions.

Responsible for tokens, idempotency keys and the provider's payment page. It must not know what the
answers mean; drills do. No proxy of the environment is used: a load test that leaves the machine by
accident measures something else.
"""

from collections.abc import Mapping
from html.parser import HTMLParser
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urljoin

import httpx
from typing_extensions import override

from loadtests.refused import Refused

TIMEOUT_S: Final = 15.0


class Api:
    """HTTP to one server. `token` may be set after signing in; use as an async context manager."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url.rstrip("/")
        self.token = token
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    def _headers(self, token: str | None, key: str | None) -> dict[str, str]:
        who = self.token if token is None else token
        headers = {"Authorization": f"Bearer {who}"} if who else {}
        return headers | ({"Idempotency-Key": key} if key is not None else {})

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        key: str | None = None,
    ) -> Any:
        """The JSON of the answer (None without one). Raises `Refused` with the problem's code."""
        headers = self._headers(token, key)
        address = self.url + path
        return _read(await self._http.request(method, address, json=body, headers=headers))

    async def get(self, path: str, *, token: str | None = None) -> Any:
        """GET as JSON. Raises `Refused`."""
        return await self.call("GET", path, token=token)

    async def send_csv(self, path: str, text: str) -> Any:
        """POST of a product file. Raises `Refused`."""
        headers = {**self._headers(None, None), "Content-Type": "text/csv"}
        return _read(await self._http.post(self.url + path, content=text.encode(), headers=headers))

    async def guest(self, name: str) -> str:
        """The token of a new guest."""
        answer = await self.call("POST", "/api/v1/guests", {"name": name}, token="")
        return str(answer["token"])

    async def sign_in(self, link: str) -> str:
        """The token behind a one-time link (the whole address or its token)."""
        secret = link.rpartition("link=")[2]
        answer = await self.call("POST", "/api/v1/sessions", {"link": secret}, token="")
        return str(answer["token"])

    async def payment_form(self, address: str) -> "Form":
        """The form of the provider's hosted page. Raises `httpx.HTTPError`."""
        headers = {"Accept-Language": "en"}
        page = await self._http.get(address, headers=headers, follow_redirects=True)
        page.raise_for_status()
        return read_form(page.text, str(page.url))

    async def press(self, form: "Form") -> None:
        """Press the first button of the form. Raises `httpx.HTTPError` if the page refuses."""
        answer = await self._http.post(form.address, data=form.values)
        if answer.status_code >= 400:
            answer.raise_for_status()


class Form(NamedTuple):
    """A page's form as a browser would send it when its first button is pressed."""

    title: str
    address: str
    values: dict[str, str]

    @property
    def sandbox(self) -> bool:
        """Our sandbox says so in its title; at any other provider nothing may be pressed."""
        return "sandbox" in self.title.lower() and "card" in self.values


def read_form(html: str, address: str) -> Form:
    """The first form of a page: hidden fields and its first named button."""
    reader = _FormReader()
    reader.feed(html)
    return Form(reader.title, urljoin(address, reader.action), reader.values)


class _FormReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.action = ""
        self.values: dict[str, str] = {}
        self._inside = ""
        self._pressed = False

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "title" and not self.title:
            self._inside = "title"
        elif tag == "form" and not self._inside:
            self._inside = "form"
            self.action = named.get("action", "")
        elif self._inside == "form" and "name" in named:
            if tag == "input" and named.get("type") == "hidden":
                self.values[named["name"]] = named.get("value", "")
            elif tag == "button" and not self._pressed:
                self._pressed = True
                self.values[named["name"]] = named.get("value", "")

    @override
    def handle_endtag(self, tag: str) -> None:
        if tag == "title" and self._inside == "title":
            self._inside = ""
        elif tag == "form" and self._inside == "form":
            self._inside = "done"

    @override
    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data


def _read(response: httpx.Response) -> Any:
    if response.status_code < 400:
        return response.json() if response.content else None
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    raise Refused(
        str(problem.get("code", f"http_{response.status_code}")),
        str(problem.get("detail", response.reason_phrase)),
        retry_after_ms=problem.get("retry_after_ms"),
        details=problem.get("details"),
    )
