//! Whole events: one line of either mode.

use super::author::Author;
use super::json::{Escapes, Json, write_time};
use super::rng::{hex32, uuid};
use super::sessions::{Session, Step, UTC};
use super::{SECOND_US, SampleEvent};

impl Author {
    pub(super) fn varied_event(&mut self, session: &mut Session, step: Step, now_us: i64) -> SampleEvent {
        if session.events == 1 {
            session.started_us = now_us;
        }
        let escapes = session.escapes;
        let mut json = Json::new(std::mem::take(&mut self.json), escapes);
        // Clients do not agree on the order of members; what is hashed must not depend on it.
        let payload_first = session.started_us % 5 == 0;
        json.open('{');
        if payload_first {
            json.key("payload");
            self.payload(&mut json, session, step, now_us);
        }
        json.text("session_id", &session.id);
        json.text("agent_id", session.agent);
        json.text("event_type", step.event_type());
        if !self.rng.one_in(4) {
            let severity = step.severity(&mut self.rng);
            json.text("severity", severity);
        }
        if !self.rng.one_in(3) {
            let id = self.rng.next();
            match session.trace % 3 {
                0 => json.raw("source_id", format_args!("\"span_{id:016x}\"")),
                1 => json.text("source_id", &uuid(&mut self.rng)),
                _ => json.raw("source_id", format_args!("\"{}/{}\"", session.events, id >> 40)),
            }
        }
        if !payload_first {
            json.key("payload");
            self.payload(&mut json, session, step, now_us);
        }
        self.metadata(&mut json, session);
        if !self.rng.one_in(20) {
            let at_us = match self.rng.below(400) {
                _ if session.events == 1 => now_us,
                // Late: a queue that was offline for minutes, or for days.
                0..2 => now_us - self.rng.octave(60, 5 * 86_400) as i64 * SECOND_US,
                _ => now_us - self.rng.below(40_000) as i64,
            };
            json.key("timestamp");
            write_time(&mut json.out, at_us, session.clock);
        }
        if let Some(tag) = session.compliance_tag {
            json.text("compliance_tag", tag);
        }
        json.close('}');
        self.finish(json, session, step)
    }

    fn finish(&mut self, json: Json, session: &Session, step: Step) -> SampleEvent {
        // A copy of the right size, so that one huge line does not leave every later one a huge buffer.
        let line = json.out.as_str().to_owned();
        self.json = json.out;
        self.json.clear();
        self.json.shrink_to(1 << 16);
        SampleEvent {
            session_id: session.id.clone(),
            agent_id: session.agent.to_owned(),
            event_type: step.event_type(),
            json: line,
        }
    }

    fn metadata(&mut self, json: &mut Json, session: &Session) {
        match self.rng.below(10) {
            0..3 => {}
            3 => json.raw("metadata", "{}"),
            4..8 => {
                json.member("metadata", '{');
                json.raw("trace_id", format_args!("\"{}\"", hex32(session.trace)));
                json.raw("span_id", format_args!("\"{:016x}\"", self.rng.next()));
                json.text("env", "production");
                json.close('}');
            }
            _ => {
                json.member("metadata", '{');
                json.text("sdk", "quipu-py/0.4.1");
                json.text("host", "worker-3.eu-central-1.example.net");
                json.raw("attempt", self.rng.range(1, 3));
                json.member("labels", '{');
                self.members(json, session, 1, 2);
                json.close('}');
                json.close('}');
            }
        }
    }

    /// One line of about `aim` bytes (never below what the type's fields need).
    pub(super) fn bench_event(
        &mut self,
        session: &mut Session,
        step: Step,
        now_us: i64,
        aim: usize,
    ) -> SampleEvent {
        let mut json = Json::new(std::mem::take(&mut self.json), Escapes::Minimal);
        json.open('{');
        json.text("session_id", &session.id);
        json.text("agent_id", session.agent);
        json.text("event_type", step.event_type());
        let severity = step.severity(&mut self.rng);
        json.text("severity", severity);
        json.text("source_id", &hex32(self.rng.next())[..16]);
        json.member("metadata", '{');
        json.text("trace_id", &hex32(session.trace));
        json.close('}');
        json.key("timestamp");
        write_time(&mut json.out, now_us, UTC);
        json.member("payload", '{');
        let tail = 2; // the two braces that close the line
        match step {
            Step::LlmCall { call } => {
                self.model_members(&mut json, session, call);
                json.raw("parameters", "{\"temperature\":0.2,\"maxTokens\":4096}");
                json.raw("messages", "[{\"role\":\"user\",\"content\":\"");
                self.fill_exactly(&mut json, session, aim - 4 - tail);
                json.out.push_str("\"}]");
            }
            Step::LlmResponse { call, tools } => {
                self.model_members(&mut json, session, call);
                self.usage_members(&mut json, session, aim, tools[0].is_some());
                json.raw("completion", "\"");
                self.fill_exactly(&mut json, session, aim - 1 - tail);
                json.out.push('"');
            }
            Step::ToolCall { call, tool } => {
                self.tool_members(&mut json, session, call, tool);
                json.raw("arguments", "{\"path\":\"");
                json.escape(self.rng.choose(&session.paths));
                json.out.push_str("\",\"query\":\"");
                self.fill_exactly(&mut json, session, aim - 2 - tail);
                json.out.push_str("\"}");
            }
            Step::ToolResponse { call, tool } | Step::ToolError { call, tool } => {
                self.tool_members(&mut json, session, call, tool);
                json.raw("durationMs", self.rng.octave(2, 30_000));
                let is_error = matches!(step, Step::ToolError { .. });
                json.raw(if is_error { "error" } else { "result" }, "\"");
                self.fill_exactly(&mut json, session, aim - 1 - tail);
                json.out.push('"');
            }
            // No other step is planned in bench mode.
            _ => {}
        }
        json.close('}');
        json.close('}');
        self.finish(json, session, step)
    }
}
