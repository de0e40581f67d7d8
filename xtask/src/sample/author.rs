//! The author: everything that draws random numbers, and the plan of a session.
//!
//! The rest of what it does stands in `events.rs` (whole lines), `payloads.rs` (payloads) and `text.rs` (values).

use std::collections::VecDeque;
use std::ops::Range;

use super::json::{ESCAPE_STYLES, Escapes};
use super::rng::{Rng, base32, invented_word, uuid};
use super::sessions::{Outcome, Session, Step, UTC};
use super::templates::TEMPLATES;
use super::vocabulary::{
    ACTIONS, AGENTS, ALERTS, CLOCK_STYLES, COMMON_WORDS, FORMS, MODELS, SCRIPTS, TECHNICAL_WORDS, TOOLS,
    WORD_OCTAVES,
};
use super::{BENCH_SESSION_EVENTS, Mode, VARIED_SESSION_EVENTS};

pub(super) struct Author {
    pub(super) rng: Rng,
    /// 4,095 words, the common ones first: [`Author::push_word`] draws them by rank, as language does (Zipf).
    pub(super) words: Vec<Range<u32>>,
    /// The words' letters, side by side: 40 KB together instead of thousands of allocations.
    pub(super) vocabulary: String,
    pub(super) scripts: Vec<Vec<&'static str>>,
    /// By [`Kind`].
    pub(super) templates: Vec<Vec<&'static str>>,
    /// Text before it is escaped; kept to save allocations.
    pub(super) raw: String,
    pub(super) json: String,
}

impl Author {
    pub(super) fn new(seed: u64) -> Self {
        // The vocabulary is the same under every seed: data sets differ in what they say, not in the language.
        let mut rng = Rng(0x5155_4950_5531);
        let mut words: Vec<String> = COMMON_WORDS.split_whitespace().map(str::to_owned).collect();
        let mut technical: Vec<&str> = TECHNICAL_WORDS.split_whitespace().collect();
        while words.len() < (1 << WORD_OCTAVES) - 1 {
            if words.len() < 1_000 && rng.one_in(2) && !technical.is_empty() {
                words.push(technical.swap_remove(rng.index(technical.len())).to_owned());
            } else {
                words.push(invented_word(&mut rng));
            }
        }
        let scripts = SCRIPTS.iter().map(|(_, words)| words.split_whitespace().collect()).collect();
        let templates = TEMPLATES.iter().map(|lines| lines.trim_matches('\n').lines().collect()).collect();
        let mut vocabulary = String::new();
        let mut spans = Vec::new();
        for word in &words {
            let start = vocabulary.len() as u32;
            vocabulary.push_str(word);
            spans.push(start..vocabulary.len() as u32);
        }
        Author {
            rng: Rng(seed),
            words: spans,
            vocabulary,
            scripts,
            templates,
            raw: String::new(),
            json: String::new(),
        }
    }

    pub(super) fn open_session(&mut self, mode: Mode) -> Session {
        let (low, high) = VARIED_SESSION_EVENTS;
        let mut session = Session {
            id: String::new(),
            agent: self.rng.pick(AGENTS),
            left: if mode == Mode::Bench { BENCH_SESSION_EVENTS } else { self.rng.octave(low, high) },
            events: 0,
            tool_calls: 0,
            started_us: 0,
            queue: VecDeque::new(),
            model: self.rng.index(MODELS.len()),
            escapes: Escapes::Minimal,
            compliance_tag: None,
            script: None,
            trace: self.rng.next(),
            topic: self.rng.next(),
            clock: UTC,
            paths: Vec::new(),
            idents: Vec::new(),
            system_prompt: String::new(),
            last_text: String::new(),
        };
        for _ in 0..24 {
            self.expand("$w_$w", &session);
            session.idents.push(self.raw.clone());
        }
        for _ in 0..10 {
            self.expand("$q", &session);
            session.paths.push(self.raw.clone());
        }
        session.id = match if mode == Mode::Bench { 0 } else { self.rng.below(12) } {
            0..6 => format!("sess_01KE{}", base32(self.rng.next(), 22)),
            6..10 => uuid(&mut self.rng),
            10 => format!("run/2026-01/{}-{}", session.idents[0], self.rng.below(100_000)),
            // Ids are free text to the ledger: two sessions in a hundred show it.
            _ => format!("sesión {} №{} 📎", session.idents[0], self.rng.below(100_000)),
        };
        if mode == Mode::Varied {
            session.escapes = self.rng.pick(&ESCAPE_STYLES);
            session.compliance_tag =
                self.rng.pick(&[None, None, Some("soc2"), Some("hipaa"), Some("eu-ai-act")]);
            session.script = self.rng.one_in(2).then(|| self.rng.index(SCRIPTS.len()));
            session.clock = self.rng.pick(CLOCK_STYLES);
        }
        self.expand(
            "You are $I, an assistant for $w $w. $S $S Never $s. Answer in $w form, cite $p.",
            &session,
        );
        session.system_prompt = self.raw.clone();
        session
    }

    /// Takes the next event off the session's plan, and plans the next turn when there is none.
    pub(super) fn next_step(&mut self, session: &mut Session, mode: Mode) -> Step {
        if session.queue.is_empty() {
            match (mode, session.events, session.left) {
                (Mode::Varied, 0, _) => session.queue.push_back(Step::Started),
                (Mode::Varied, _, 1) => session.queue.push_back(Step::Ended),
                (Mode::Varied, _, left) => self.plan_turn(session, left - 1),
                (Mode::Bench, _, left) => self.plan_model_turn(session, left, 16),
            }
        }
        session.left -= 1;
        session.events += 1;
        session.queue.pop_front().unwrap_or(Step::Custom)
    }

    /// One turn of at most `room` events, so that no call of a finished session is left without its answer.
    fn plan_turn(&mut self, session: &mut Session, room: u64) {
        let (id, dice) = (self.rng.next(), self.rng.below(1_000));
        if room < 2 {
            let step = self.rng.pick(&[Step::CostTracked, Step::Custom]);
            return session.queue.push_back(step);
        }
        match dice {
            0..740 => self.plan_model_turn(session, room, 16),
            740..800 => self.plan_tool_use(session, &[self.tool_use(id)], 12),
            800..850 => {
                let action = self.rng.index(ACTIONS.len());
                let outcomes = [Outcome::Granted, Outcome::Granted, Outcome::Denied, Outcome::Expired];
                let outcome = self.rng.pick(&outcomes);
                let decided = Step::ApprovalDecided { request: id, action, outcome };
                session.queue.extend([Step::ApprovalRequested { request: id, action }, decided]);
            }
            850..880 => {
                let form = self.rng.index(FORMS.len());
                session.queue.push_back(Step::FormSubmitted { submission: id, form });
                session.queue.push_back(match self.rng.one_in(4) {
                    true => Step::FormExpired { submission: id, form },
                    false => Step::FormCompleted { submission: id, form },
                });
            }
            880..910 => {
                let alert = self.rng.index(ALERTS.len());
                session.queue.extend([Step::AlertTriggered { alert }, Step::AlertResolved { alert }]);
            }
            910..950 => session.queue.push_back(Step::CostTracked),
            _ => session.queue.push_back(Step::Custom),
        }
    }

    /// A model call, its answer, and the tools that the answer asks for.
    fn plan_model_turn(&mut self, session: &mut Session, room: u64, error_in: u64) {
        if room < 2 {
            // The last event of a bench session that ends in the middle of a turn.
            let (call, tool) = self.tool_use(session.trace);
            return session.queue.push_back(Step::ToolCall { call, tool });
        }
        session.trace = self.rng.next();
        let call = self.rng.next();
        let tool_count = [1, 1, 1, 1, 2, 2, 0, 0][self.rng.index(8)].min((room - 2) / 2);
        let mut tools = [None; 2];
        for tool in tools.iter_mut().take(tool_count as usize) {
            let id = self.rng.next();
            *tool = Some(self.tool_use(id));
        }
        session.queue.extend([Step::LlmCall { call }, Step::LlmResponse { call, tools }]);
        let uses: Vec<_> = tools.into_iter().flatten().collect();
        self.plan_tool_use(session, &uses, error_in);
    }

    /// The tool of a call follows from the call's id: no second draw to keep in step.
    fn tool_use(&self, call: u64) -> (u64, usize) {
        (call, (call >> 7) as usize % TOOLS.len())
    }

    /// Calls that run side by side, answered in either order.
    fn plan_tool_use(&mut self, session: &mut Session, uses: &[(u64, usize)], error_in: u64) {
        session.tool_calls += uses.len() as u64;
        session.queue.extend(uses.iter().map(|&(call, tool)| Step::ToolCall { call, tool }));
        let mut answers: Vec<_> = uses.to_vec();
        if self.rng.one_in(2) {
            answers.reverse();
        }
        for (call, tool) in answers {
            session.queue.push_back(match self.rng.one_in(error_in) {
                true => Step::ToolError { call, tool },
                false => Step::ToolResponse { call, tool },
            });
        }
    }
}
