//! Sessions and time: which session writes next, what it plans, and when.

use std::collections::VecDeque;

use super::author::Author;
use super::json::Escapes;
use super::rng::Rng;
use super::{BENCH_LINE_BYTES_MAX, BENCH_LINE_BYTES_MIN, LIVE_SESSIONS, Mode, SampleEvent};

pub(super) struct Generator {
    pub(super) author: Author,
    pub(super) mode: Mode,
    pub(super) left: usize,
    pub(super) now_us: i64,
    pub(super) live: Vec<Session>,
    /// The session that writes now, and for how many more events: agents send in bursts.
    pub(super) current: usize,
    pub(super) burst: u64,
    /// Bytes that earlier bench lines fell short of (or passed, if negative) their aim: paid by later ones.
    pub(super) owed: i64,
}

impl Iterator for Generator {
    type Item = SampleEvent;

    fn next(&mut self) -> Option<SampleEvent> {
        self.left = self.left.checked_sub(1)?;
        let wanted = if self.mode == Mode::Bench { 1 } else { LIVE_SESSIONS };
        while self.live.len() < wanted {
            let session = self.author.open_session(self.mode);
            self.live.push(session);
        }
        if self.burst == 0 || self.current >= self.live.len() {
            self.current = self.author.rng.index(self.live.len());
            self.burst = self.author.rng.octave(1, 30);
        }
        self.burst -= 1;
        let session = &mut self.live[self.current];
        let step = self.author.next_step(session, self.mode);
        let event = match self.mode {
            Mode::Varied => self.author.varied_event(session, step, self.now_us),
            Mode::Bench => {
                // 360 + 140 + 140 + 600/2/5 = 700 on average.
                let rng = &mut self.author.rng;
                let mut aim = 360 + rng.below(281) + rng.below(281);
                if rng.one_in(5) {
                    aim += rng.below(601);
                }
                let aim = (aim as i64 + self.owed).clamp(BENCH_LINE_BYTES_MIN, BENCH_LINE_BYTES_MAX);
                let event = self.author.bench_event(session, step, self.now_us, aim as usize);
                self.owed = aim - event.json.len() as i64;
                event
            }
        };
        if session.left == 0 {
            self.live.swap_remove(self.current);
            self.burst = 0;
        }
        let pause_us = if self.mode == Mode::Bench { 4_000 } else { 900_000 };
        self.now_us += self.author.rng.range(1, pause_us) as i64;
        Some(event)
    }
}

pub(super) struct Session {
    pub(super) id: String,
    pub(super) agent: &'static str,
    /// Events still to come.
    pub(super) left: u64,
    pub(super) events: u64,
    pub(super) tool_calls: u64,
    pub(super) started_us: i64,
    pub(super) queue: VecDeque<Step>,
    pub(super) model: usize,
    pub(super) escapes: Escapes,
    pub(super) compliance_tag: Option<&'static str>,
    /// Index into [`SCRIPTS`] for a session that is not held in English alone.
    pub(super) script: Option<usize>,
    pub(super) trace: u64,
    /// Which of the rare words it uses.
    pub(super) topic: u64,
    pub(super) clock: ClockStyle,
    /// What the work is about: names come back in a session, as they do in real ones.
    pub(super) paths: Vec<String>,
    pub(super) idents: Vec<String>,
    pub(super) system_prompt: String,
    /// The last short completion as it stands in JSON: the next model call may send it back as context.
    pub(super) last_text: String,
}

/// How a client writes its timestamps.
#[derive(Clone, Copy)]
pub(super) struct ClockStyle {
    pub(super) fraction_digits: usize,
    pub(super) offset: &'static str,
    pub(super) offset_minutes: i64,
}

pub(super) const UTC: ClockStyle = ClockStyle { fraction_digits: 6, offset: "Z", offset_minutes: 0 };

/// One event to come. Numbers stand for ids, so that a call and its answer agree.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Started,
    Ended,
    LlmCall { call: u64 },
    LlmResponse { call: u64, tools: [Option<(u64, usize)>; 2] },
    ToolCall { call: u64, tool: usize },
    ToolResponse { call: u64, tool: usize },
    ToolError { call: u64, tool: usize },
    ApprovalRequested { request: u64, action: usize },
    ApprovalDecided { request: u64, action: usize, outcome: Outcome },
    FormSubmitted { submission: u64, form: usize },
    FormCompleted { submission: u64, form: usize },
    FormExpired { submission: u64, form: usize },
    CostTracked,
    AlertTriggered { alert: usize },
    AlertResolved { alert: usize },
    Custom,
}

#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Granted,
    Denied,
    Expired,
}

impl Step {
    pub(super) fn event_type(self) -> &'static str {
        match self {
            Step::Started => "session_started",
            Step::Ended => "session_ended",
            Step::LlmCall { .. } => "llm_call",
            Step::LlmResponse { .. } => "llm_response",
            Step::ToolCall { .. } => "tool_call",
            Step::ToolResponse { .. } => "tool_response",
            Step::ToolError { .. } => "tool_error",
            Step::ApprovalRequested { .. } => "approval_requested",
            Step::ApprovalDecided { outcome: Outcome::Granted, .. } => "approval_granted",
            Step::ApprovalDecided { outcome: Outcome::Denied, .. } => "approval_denied",
            Step::ApprovalDecided { outcome: Outcome::Expired, .. } => "approval_expired",
            Step::FormSubmitted { .. } => "form_submitted",
            Step::FormCompleted { .. } => "form_completed",
            Step::FormExpired { .. } => "form_expired",
            Step::CostTracked => "cost_tracked",
            Step::AlertTriggered { .. } => "alert_triggered",
            Step::AlertResolved { .. } => "alert_resolved",
            Step::Custom => "custom",
        }
    }

    pub(super) fn severity(self, rng: &mut Rng) -> &'static str {
        match self {
            Step::ToolError { .. } => "error",
            Step::AlertTriggered { .. } => rng.pick(&["warn", "error", "critical"]),
            Step::ApprovalDecided { outcome: Outcome::Denied | Outcome::Expired, .. } => "warn",
            Step::FormExpired { .. } => "warn",
            Step::Custom | Step::CostTracked => rng.pick(&["debug", "info", "info"]),
            _ => "info",
        }
    }
}
