"""Drives the published Python client of AgentLens (agentlensai 0.12.0), unmodified, against a server.

Usage: agentlens_client.py URL TOKEN. Prints one line a check; exits non-zero at the first that fails.
"""

import sys
import uuid

from agentlensai import (
    AgentLensClient,
    AuthenticationError,
    EventQuery,
    LlmMessage,
    LogLlmCallParams,
    NotFoundError,
    SessionQuery,
    TokenUsage,
    ToolDef,
    ValidationError,
)

URL, TOKEN = sys.argv[1], sys.argv[2]
checks = 0


def check(name, holds, seen=None):
    global checks
    checks += 1
    print(("ok   " if holds else "FAIL ") + name)
    if not holds:
        sys.exit(f"{name}: {seen!r}")


def refuses(name, error, call):
    try:
        seen = call()
    except error as caught:
        check(name, True)
        return caught
    check(name, False, seen)


def event(session, kind, payload, second, **more):
    at = f"2026-03-01T10:00:{second:02d}.123456+00:00"
    return {"sessionId": session, "agentId": "agent-a", "eventType": kind, "payload": payload, "timestamp": at, **more}


session = f"py-{uuid.uuid4()}"
call = {"toolName": "search", "callId": "c1", "arguments": {"query": "Knoten ünd 結び目 🪢"}}
batch = [
    event(session, "session_started", {"agentName": "Agent A", "tags": ["blue", "beta"]}, 0),
    event(session, "tool_call", call, 1),
    event(session, "tool_response", {"callId": "c1", "toolName": "search", "result": [1, None], "durationMs": 12.5}, 2),
    event(session, "tool_error", {"callId": "c2", "toolName": "search", "error": "boom", "durationMs": 1}, 3, severity="error"),
    event(session, "cost_tracked", {"provider": "p", "model": "m", "inputTokens": 1, "outputTokens": 2, "totalTokens": 3, "costUsd": 0.25}, 4),
    event(session, "custom", {"type": "note", "data": {"big": 9007199254740993}}, 5, severity="debug", metadata={"k": "v"}),
]

with AgentLensClient(URL, api_key=TOKEN) as client:
    health = client.health()
    check("health", health.status == "ok" and health.version)

    # The client's own transport: it has no method for a batch.
    answer = client._request("POST", "/api/events", json={"events": batch})
    check("ingest", answer["ingested"] == 6 and len(answer["events"]) == 6, answer)
    ids = [e["id"] for e in answer["events"]]

    llm = client.log_llm_call(
        session,
        "agent-a",
        LogLlmCallParams(
            provider="anthropic",
            model="claude",
            messages=[LlmMessage(role="user", content="hello")],
            completion=None,
            finish_reason="stop",
            usage=TokenUsage(input_tokens=11, output_tokens=7, total_tokens=18),
            cost_usd=0.5,
            latency_ms=100.0,
            tools=[ToolDef(name="search")],
        ),
    )
    check("log_llm_call", bool(llm.call_id), llm)

    everything = client.query_events(EventQuery(session_id=session, limit=100))
    check("query a session", everything.total == 8 and len(everything.events) == 8 and not everything.has_more, everything.total)
    times = [e.timestamp for e in everything.events]
    check("newest first", times == sorted(times, reverse=True), times)
    ascending = client.query_events(EventQuery(session_id=session, order="asc", limit=100))
    check("oldest first", [e.id for e in ascending.events][:6] == ids, [e.id for e in ascending.events])
    check("what was sent comes back", ascending.events[1].payload == call and ascending.events[5].payload["data"]["big"] == 9007199254740993)
    check("metadata comes back", ascending.events[5].metadata == {"k": "v"})
    check("microseconds come back", ascending.events[0].timestamp == "2026-03-01T10:00:00.123456Z", ascending.events[0].timestamp)
    check("the first has no hash before it", ascending.events[0].prev_hash is None and ascending.events[1].prev_hash == ascending.events[0].hash)

    def count(**query):
        return client.query_events(EventQuery(session_id=session, limit=100, **query)).total

    check("by type", count(event_type="tool_call") == 1)
    check("by types", count(event_type=["tool_call", "tool_error"]) == 2)
    check("by severity", count(severity="error") == 1 and count(severity=["error", "debug"]) == 2)
    check("by agent", count(agent_id="agent-a") == 8 and count(agent_id="nobody") == 0)
    check("by time", count(**{"from": "2026-03-01T10:00:02+00:00", "to": "2026-03-01T10:00:04+00:00"}) == 2)
    check("by text", count(search="結び目") == 1 and count(search="KNOTEN") == 1 and count(search="absent") == 0)

    pages, offset = [], 0
    while True:
        page = client.query_events(EventQuery(session_id=session, limit=3, offset=offset, order="asc"))
        pages += [e.id for e in page.events]
        offset += 3
        check(f"page at {offset - 3}", page.total == 8 and page.has_more == (offset < 8))
        if not page.has_more:
            break
    check("pages join", pages == [e.id for e in ascending.events], pages)

    one = client.get_event(ids[1])
    check("by id", one.id == ids[1] and one.payload == call)

    summary = client.get_session(session)
    check("session counts", (summary.event_count, summary.tool_call_count, summary.error_count, summary.llm_call_count) == (8, 1, 1, 1), summary)
    check("session tokens", (summary.total_input_tokens, summary.total_output_tokens) == (11, 7), summary)
    check("session cost", summary.total_cost_usd == 0.75, summary.total_cost_usd)
    check("session status", summary.status == "active" and summary.ended_at is None, summary)
    check("session tags", summary.tags == ["blue", "beta"] and summary.agent_name == "Agent A", summary)
    check("session start", summary.started_at == "2026-03-01T10:00:00.123456Z", summary.started_at)

    ended = event(session, "session_ended", {"reason": "error"}, 59)
    client._request("POST", "/api/events", json={"events": [ended]})
    summary = client.get_session(session)
    check("session ended", summary.status == "error" and summary.ended_at == "2026-03-01T10:00:59.123456Z", summary)

    found = client.get_sessions(SessionQuery(agent_id="agent-a", status=["error"], tags=["beta", "other"], limit=500))
    check("sessions", session in [s.id for s in found.sessions] and found.total >= 1, found)
    none = client.get_sessions(SessionQuery(tags=["no such tag"]))
    check("no sessions", none.sessions == [] and none.total == 0 and not none.has_more, none)

    timeline = client.get_session_timeline(session)
    check("timeline", timeline.chain_valid and len(timeline.events) == 9)

    agent = client.get_agent("agent-a")
    check("agent", agent.id == "agent-a" and agent.name == "Agent A" and agent.session_count >= 1, agent)

    refuses("unknown event", NotFoundError, lambda: client.get_event(str(uuid.uuid4())))
    refuses("unknown session", NotFoundError, lambda: client.get_session("no such session"))
    refuses("unknown agent", NotFoundError, lambda: client.get_agent("nobody"))
    bad = event(session, "tool_call", {"callId": "c", "arguments": {}}, 6)
    error = refuses("invalid payload", ValidationError, lambda: client._request("POST", "/api/events", json={"events": [bad]}))
    check("its path", error.details[0]["path"] == "events.0.payload.toolName", error.details)
    refuses("empty batch", ValidationError, lambda: client._request("POST", "/api/events", json={"events": []}))
    check("nothing of a refused batch is stored", client.get_session(session).event_count == 9)

with AgentLensClient(URL, api_key="qp_wrong") as client:
    refuses("wrong key", AuthenticationError, lambda: client.query_events())
    check("health needs no key", client.health().status == "ok")

print(f"{checks} passed, 0 failed")
