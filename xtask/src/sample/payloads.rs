//! Payloads, as the events page of the API describes them.

use super::author::Author;
use super::json::{Json, Nanos};
use super::rng::base32;
use super::sessions::{Outcome, Session, Step};
use super::templates::{Kind, TEXT_KINDS};
use super::vocabulary::{
    ACTIONS, ALERTS, CUSTOM_TYPES, ERROR_CODES, FORMS, KEYS, MODELS, NUMBERS, Shape, TOOLS,
};

impl Author {
    pub(super) fn payload(&mut self, json: &mut Json, session: &mut Session, step: Step, now_us: i64) {
        json.open('{');
        match step {
            Step::Started => self.session_started(json, session),
            Step::Ended => {
                let reason =
                    self.rng.pick(&["completed", "completed", "completed", "error", "timeout", "manual"]);
                json.text("reason", reason);
                self.text_member(json, session, "summary", "$S $S $l");
                json.raw("totalToolCalls", session.tool_calls);
                json.raw("totalDurationMs", (now_us - session.started_us) / 1_000);
            }
            Step::LlmCall { call } => self.llm_call(json, session, call),
            Step::LlmResponse { call, tools } => self.llm_response(json, session, call, tools),
            Step::ToolCall { call, tool } => {
                self.tool_members(json, session, call, tool);
                json.key("arguments");
                self.arguments(json, session, tool);
                json.text("serverName", TOOLS[tool].1);
            }
            Step::ToolResponse { call, tool } => {
                // Members in no fixed order: some clients write the duration first.
                let duration_first = call % 3 == 0;
                let duration = self.rng.octave(2, 60_000);
                if duration_first {
                    json.raw("durationMs", duration);
                }
                self.tool_members(json, session, call, tool);
                json.key("result");
                self.tool_result(json, session, tool);
                if !duration_first {
                    json.raw("durationMs", format_args!("{duration}.{:03}", call % 1_000));
                }
            }
            Step::ToolError { call, tool } => {
                self.tool_members(json, session, call, tool);
                let size = self.rng.octave(80, 2_500) as usize;
                self.text_lines(json, session, "error", Kind::Trace, size);
                if self.rng.one_in(2) {
                    json.text("errorCode", self.rng.pick(ERROR_CODES));
                }
                json.raw("durationMs", self.rng.octave(2, 60_000));
            }
            Step::ApprovalRequested { request, action } => {
                json.raw("requestId", format_args!("\"apr_{request:016x}\""));
                json.text("action", ACTIONS[action]);
                json.member("params", '{');
                let path = self.rng.choose(&session.paths);
                json.text("target", path);
                self.members(json, session, 1, 4);
                json.close('}');
                json.text("urgency", self.rng.pick(&["low", "normal", "normal", "high", "critical"]));
            }
            Step::ApprovalDecided { request, action, outcome } => {
                json.raw("requestId", format_args!("\"apr_{request:016x}\""));
                json.text("action", ACTIONS[action]);
                match outcome {
                    Outcome::Expired => json.text("decidedBy", "system"),
                    _ => self.text_member(json, session, "decidedBy", "$m"),
                }
                if self.rng.one_in(2) {
                    self.text_member(json, session, "reason", "$S $l");
                }
            }
            Step::FormSubmitted { submission, form } => {
                json.raw("submissionId", format_args!("\"sub_{submission:016x}\""));
                json.text("formId", FORMS[form].0);
                json.text("formName", FORMS[form].1);
                json.raw("fieldCount", self.rng.range(2, 40));
            }
            Step::FormCompleted { submission, form } => {
                json.raw("submissionId", format_args!("\"sub_{submission:016x}\""));
                json.text("formId", FORMS[form].0);
                self.text_member(json, session, "completedBy", "$m");
                json.raw("durationMs", self.rng.octave(900, 9_000_000));
            }
            Step::FormExpired { submission, form } => {
                json.raw("submissionId", format_args!("\"sub_{submission:016x}\""));
                json.text("formId", FORMS[form].0);
                json.raw("expiredAfterMs", 86_400_000);
            }
            Step::CostTracked => {
                let (provider, model, price) = MODELS[session.model];
                json.text("provider", provider);
                json.text("model", model);
                let (input, output) = (self.rng.octave(100, 90_000), self.rng.octave(4, 6_000));
                json.raw("inputTokens", input);
                json.raw("outputTokens", output);
                json.raw("totalTokens", input + output);
                json.raw("costUsd", Nanos(input * price + output * price * 4));
                json.text("trigger", self.rng.pick(&["llm_response", "budget_poll", "session_ended"]));
            }
            Step::AlertTriggered { alert } => {
                let (rule, name, condition) = ALERTS[alert];
                json.text("alertRuleId", rule);
                json.text("alertName", name);
                json.text("condition", condition);
                let threshold = self.rng.octave(2, 4_000);
                json.raw("currentValue", Nanos(threshold * 1_000_000_000 + self.rng.octave(1, 1 << 40)));
                json.raw("threshold", threshold);
                self.text_member(json, session, "message", "$S $l");
            }
            Step::AlertResolved { alert } => {
                json.text("alertRuleId", ALERTS[alert].0);
                json.text("alertName", ALERTS[alert].1);
                if self.rng.one_in(2) {
                    self.text_member(json, session, "resolvedBy", "$m");
                }
            }
            Step::Custom => {
                json.text("type", self.rng.pick(CUSTOM_TYPES));
                json.key("data");
                if self.rng.one_in(40) {
                    let depth = self.rng.range(8, 48) as usize;
                    json.nest(depth);
                    self.object(json, session, 1);
                    json.unnest(depth);
                } else {
                    self.object(json, session, 4);
                }
            }
        }
        json.close('}');
    }

    fn session_started(&mut self, json: &mut Json, session: &Session) {
        json.text("agentName", session.agent);
        self.text_member(json, session, "agentVersion", "1.$x.$x");
        json.raw("mcpClientInfo", "{\"name\":\"studio-shell\",\"version\":\"0.9.2\"}");
        json.member("tags", '[');
        for _ in 0..self.rng.range(1, 4) {
            self.raw.clear();
            let template = self.rng.pick(&["team:$w", "$k", "env:production", "ticket:OPS-$n", "$f"]);
            self.expand_more(template, session);
            json.item(&self.raw);
        }
        json.close(']');
    }

    pub(super) fn model_members(&mut self, json: &mut Json, session: &Session, call: u64) {
        let (provider, model, _) = MODELS[session.model];
        json.raw("callId", format_args!("\"llm_{}\"", base32(call, 13)));
        json.text("provider", provider);
        json.text("model", model);
    }

    pub(super) fn tool_members(&mut self, json: &mut Json, _session: &Session, call: u64, tool: usize) {
        json.raw("callId", format_args!("\"call_{}\"", base32(call, 13)));
        json.text("toolName", TOOLS[tool].0);
    }

    pub(super) fn usage_members(
        &mut self,
        json: &mut Json,
        session: &Session,
        text_bytes: usize,
        calls_tools: bool,
    ) {
        // English takes about four bytes a token.
        let (input, output) = (self.rng.octave(200, 60_000), text_bytes as u64 / 4 + self.rng.range(3, 90));
        let total = input + output;
        json.member("usage", '{');
        json.raw("inputTokens", input);
        json.raw("outputTokens", output);
        json.raw("totalTokens", total);
        json.close('}');
        json.raw("costUsd", Nanos((input + output * 4) * MODELS[session.model].2));
        json.raw("latencyMs", self.rng.octave(180, 40_000));
        json.text("finishReason", if calls_tools { "tool_calls" } else { "stop" });
    }

    fn llm_call(&mut self, json: &mut Json, session: &Session, call: u64) {
        self.model_members(json, session, call);
        if self.rng.one_in(4) {
            json.text("systemPrompt", &session.system_prompt);
        }
        json.member("messages", '[');
        if !session.last_text.is_empty() && self.rng.one_in(2) {
            json.raw("", "{");
            json.text("role", "assistant");
            json.raw("content", &session.last_text);
            json.close('}');
        }
        json.raw("", "{");
        json.text("role", self.rng.pick(&["user", "user", "tool"]));
        let size = self.size();
        let kind = self.rng.pick(TEXT_KINDS);
        self.text_lines(json, session, "content", kind, size);
        json.close('}');
        json.close(']');
        if self.rng.one_in(3) {
            let temperature = self.rng.pick(&["0", "-0", "0.0", "0.7", "1", "1.0", "1e-7", "2E-1"]);
            json.raw("parameters", format_args!("{{\"temperature\":{temperature},\"maxTokens\":8192}}"));
        }
        if self.rng.one_in(25) {
            json.member("tools", '[');
            for (name, server, _) in TOOLS.iter().take(3) {
                json.raw("", "{");
                json.text("name", name);
                json.text("description", server);
                json.close('}');
            }
            json.close(']');
        }
        if self.rng.one_in(30) {
            json.raw("redacted", "false");
        }
    }

    fn llm_response(
        &mut self,
        json: &mut Json,
        session: &mut Session,
        call: u64,
        tools: [Option<(u64, usize)>; 2],
    ) {
        self.model_members(json, session, call);
        let size = self.size().min(24_000);
        let kind = self.rng.pick(TEXT_KINDS);
        let from = json.out.len() + ",\"completion\":".len();
        self.text_lines(json, session, "completion", kind, size);
        let size = json.out.len() - from;
        if size < 3_000 {
            session.last_text.clear();
            session.last_text.push_str(&json.out[from..]);
        }
        if tools[0].is_some() {
            json.member("toolCalls", '[');
            for (call, tool) in tools.into_iter().flatten() {
                json.raw("", "{");
                json.raw("id", format_args!("\"call_{}\"", base32(call, 13)));
                json.text("name", TOOLS[tool].0);
                json.close('}');
            }
            json.close(']');
        }
        self.usage_members(json, session, size, tools[0].is_some());
    }

    fn arguments(&mut self, json: &mut Json, session: &Session, tool: usize) {
        json.open('{');
        match TOOLS[tool].2 {
            Shape::File => {
                let path = self.rng.choose(&session.paths);
                json.text("path", path);
                json.raw("offset", self.rng.octave(1, 4_000));
            }
            Shape::Edit => {
                let path = self.rng.choose(&session.paths);
                json.text("path", path);
                let size = self.size().min(9_000);
                self.text_lines(json, session, "content", Kind::Code, size);
            }
            Shape::Command => {
                self.text_member(
                    json,
                    session,
                    "command",
                    "cargo $k --package $w -- $i --$k=$n | grep -n '$w'",
                );
                json.raw("timeoutMs", 120_000);
            }
            Shape::Sql => {
                let size = self.size().min(1_500);
                self.text_lines(json, session, "sql", Kind::Sql, size);
                json.raw(
                    "params",
                    format_args!("[{},\"{:08x}\"]", self.rng.pick(NUMBERS), self.rng.next() >> 32),
                );
            }
            Shape::Http => {
                json.text("method", self.rng.pick(&["GET", "POST", "PATCH"]));
                self.text_member(
                    json,
                    session,
                    "url",
                    "https://api.$w.example.com/v2/$w/$u?page=$x&limit=$n",
                );
                json.key("body");
                self.object(json, session, 2);
            }
            Shape::Search => {
                self.text_member(json, session, "query", "$s $f");
                json.raw("topK", self.rng.range(3, 50));
                json.member("filter", '{');
                self.members(json, session, 1, 2);
                json.close('}');
            }
            Shape::Mail => {
                self.text_member(json, session, "to", "$m");
                self.text_member(json, session, "subject", "$W $s");
                let size = self.size().min(4_000);
                self.text_lines(json, session, "body", Kind::Prose, size);
            }
        }
        json.close('}');
    }

    fn tool_result(&mut self, json: &mut Json, session: &Session, tool: usize) {
        let end = json.out.len() + self.size();
        let kind = match TOOLS[tool].2 {
            Shape::File => Kind::Code,
            Shape::Edit => Kind::Diff,
            Shape::Command => self.rng.pick(&[Kind::Log, Kind::Listing, Kind::Trace]),
            Shape::Mail => Kind::Prose,
            Shape::Sql | Shape::Http | Shape::Search => {
                // Rows share their keys, as the rows of a table do.
                let first_key = self.rng.index(KEYS.len());
                let columns = self.rng.range(3, 8) as usize;
                json.open('{');
                json.member("rows", '[');
                while json.out.len() < end {
                    json.raw("", "{");
                    for column in 0..columns {
                        json.key(KEYS[(first_key + column * 7) % KEYS.len()]);
                        self.scalar(json, session);
                    }
                    json.close('}');
                }
                json.close(']');
                json.text("status", "ok");
                return json.close('}');
            }
        };
        json.open('"');
        self.fill(json, session, kind, end);
        json.out.push('"');
    }
}
