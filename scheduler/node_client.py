"""The client's calls on nodes and maintenance windows (docs/api.md)."""

from __future__ import annotations

from typing import cast
from urllib.parse import quote

from .transport import JSON, Transport


class NodeCalls:
    """Part of `Client`."""

    _http: Transport

    def nodes(self, *, gone: bool = False) -> list[JSON]:
        """The cluster's nodes with what is free and who holds the rest; those that left too if `gone`."""
        nodes: list[JSON] = self._http.call("GET", "/v1/nodes", query=[("gone", "1")] if gone else [])["nodes"]
        return nodes

    def node(self, name: str) -> JSON:
        """One node, with its history as `events`."""
        return cast(JSON, self._http.call("GET", _node(name))["node"])

    def cordon(self, name: str, reason: str = "", *, user: str = "") -> JSON:
        """Give a node no new work; what runs there goes on. `changed`: whether it was not so already."""
        return self._order(name, "cordon", {"reason": reason}, user)

    def drain(
        self, name: str, reason: str = "", *, within: float | None = None, deadline: str = "", user: str = ""
    ) -> JSON:
        """Give a node no new work, and have what runs there gone in time: it ends by itself, or is moved.

        Args:
            name: the node.
            reason: why.
            within: seconds from now; 0 = at once.
            deadline: or else a time, in ISO 8601 or UTC seconds; empty = when it ends by itself.
            user: who asks.
        """
        when: JSON = {} if within is None else {"within": within}
        if deadline:
            when["deadline"] = deadline
        return self._order(name, "drain", {"reason": reason, **when}, user)

    def resume(self, name: str, *, user: str = "") -> JSON:
        """Give a cordoned or drained node work again. `changed`: whether it was either."""
        return self._order(name, "resume", {}, user)

    def _order(self, name: str, verb: str, body: JSON, user: str) -> JSON:
        answer = self._http.call("POST", f"{_node(name)}/{verb}", {**body, "user": user} if user else body)
        return cast(JSON, answer["node"])

    def windows(self, *, over: bool = False) -> list[JSON]:
        """Maintenance windows that are planned or on; those that are over or cancelled too if `over`."""
        query = [("all", "1")] if over else []
        windows: list[JSON] = self._http.call("GET", "/v1/maintenance", query=query)["windows"]
        return windows

    def add_window(self, **wanted: object) -> JSON:
        """Plan a maintenance window; keys as in docs/api.md (nodes, labels, all, start, after, duration, ...)."""
        body = {key: value for key, value in wanted.items() if value not in (None, "", [], {})}
        return cast(JSON, self._http.call("POST", "/v1/maintenance", body)["window"])

    def cancel_window(self, number: int, *, user: str = "") -> JSON:
        """Call a maintenance window off. `changed`: whether it was not over or cancelled already."""
        body = {"user": user} if user else {}
        return cast(JSON, self._http.call("POST", f"/v1/maintenance/{number}/cancel", body)["window"])


def _node(name: str) -> str:
    """The path of a node."""
    return f"/v1/nodes/{quote(name, safe='')}"
