//! Vocabulary: the words, names, keys and numbers that events are made of.

use super::sessions::{ClockStyle, UTC};

/// 2^12 - 1 words; half of all words drawn are among the first 63.
pub(super) const WORD_OCTAVES: u32 = 12;

/// From the 256th word on, one in eight belongs to any one session's subject.
pub(super) const TOPIC_OCTAVE_MIN: u64 = 8;
pub(super) const TOPIC_MASK: u64 = 0b111;

pub(super) const COMMON_WORDS: &str = "the of to and a in is for that with on it as be this are from by an or not we at have \
    was can will when if which but has all one no then so there into only after use each must same new its \
    should two before any do time more other over how value they what now out because first while";

pub(super) const TECHNICAL_WORDS: &str = "account adapter agent aggregate alarm allocate amount analytics append archive argument \
    array assert async atomic attempt attribute audit auth backlog backoff backup balance bandwidth barrier batch \
    billing binary bloom body boundary branch broker browser bucket budget buffer build bundle byte cache callback \
    capacity catalogue certificate channel checkpoint checksum chunk client clock cluster codec column commit \
    compact compaction compile component compress concurrency condition config conflict connection consensus \
    constraint consumer container context contract coroutine counter coverage crash credit cursor customer daemon \
    dashboard database dataset deadline debug decoder dedupe default delay delete delivery dependency deploy \
    deserialize digest directory dispatch document domain downstream driver duplicate duration edge element \
    embedding encoder encrypt endpoint engine entity entry enum environment epoch error event exception executor \
    expiry export expression failover failure fallback feature fetch field file filter firewall fixture flag flush \
    follower fork format frame function fuzz gateway generator handler hash header heap heartbeat histogram hook \
    host idempotent identifier image import inbound index ingest inode insert instance integer interface interval \
    invoice iterator job journal json kernel key label lambda latency layer leader lease ledger library limit \
    listener load locale lock log loop manifest mapping marker memory merge message metadata method metric \
    migration mirror model module monitor mutex namespace network node normalise notification null object offset \
    operator optimise option order orchestrator origin outage output overflow owner packet page parallel parameter \
    parser partition patch path payload payment peer percentile permission pipeline plugin pointer policy poll pool \
    port prefix primary priority process producer profile prompt protocol provider proxy publish query queue quorum \
    quota range rate reader rebalance record recovery redact reducer reference refund region registry regression \
    release replica replay report request reservation resolver resource response restart result retention retry \
    revision rollback rollout route row runtime sample sandbox scale scan schedule schema scope script search \
    segment semaphore sensor sequence serialize server service session shard shipment signal signature snapshot \
    socket source span stack stage state statement status storage stream string struct subscriber suffix summary \
    supplier switch symbol sync syntax table tag task template tenant test thread threshold throttle throughput \
    ticket timeout timer token topic trace traffic transaction transform trigger tuple type unit update upload \
    upstream usage user validate variable vector verify version view volume warehouse watch webhook window worker \
    workflow workspace write yield zone";

/// How words are joined, and the words.
pub(super) const SCRIPTS: &[(&str, &str)] = &[
    (
        " ",
        "für größe prüfen Straße über Schlüssel könnte fähig Änderung während Übertragung nächste Fehlermeldung heißt",
    ),
    (
        " ",
        "données modèle après déjà événement sécurité réponse où être façon créé numéro œuvre évidemment hôte",
    ),
    (
        " ",
        "año sesión acción respuesta código también según número mañana señal búsqueda aquí ¿cuándo? ¡listo!",
    ),
    (
        " ",
        "данные событие запрос ответ ошибка сервер проверка ключ журнал время очередь сообщение файл пользователь",
    ),
    (" ", "δεδομένα αίτημα απάντηση σφάλμα χρόνος κλειδί αρχείο μήνυμα χρήστης έλεγχος σειρά"),
    (" ", "بيانات طلب استجابة خطأ خادم مفتاح سجل وقت رسالة ملف مستخدم تحقق"),
    (" ", "נתונים בקשה תשובה שגיאה שרת מפתח יומן זמן הודעה קובץ משתמש"),
    (" ", "डेटा अनुरोध उत्तर त्रुटि सर्वर कुंजी समय संदेश फ़ाइल उपयोगकर्ता जाँच क्रम"),
    (" ", "데이터 요청 응답 오류 서버 열쇠 기록 시간 메시지 파일 사용자 검증"),
    ("", "数据 请求 回答 错误 服务器 密钥 日志 时间 消息 文件 用户 验证 顺序 会话 。 ，"),
    ("", "データ を 要求 応答 エラー サーバー 鍵 記録 時間 メッセージ ファイル 利用者 検証 です 。 𠮷野家"),
    ("", "ข้อมูล คำขอ คำตอบ ข้อผิดพลาด เซิร์ฟเวอร์ กุญแจ บันทึก เวลา ข้อความ ไฟล์ ผู้ใช้"),
    // Combining marks, mathematical letters and other planes: what counts as a character differs by language.
    (
        " ",
        "e\u{301}te\u{301} n\u{303} 𝒳 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ﬁne \u{1F469}\u{200D}\u{1F4BB} 🇵🇪 a\u{308}o\u{308} \u{FEFF}bom Å ½ ∑ →",
    ),
];

pub(super) const EMOJI: &[&str] = &["✅", "🚀", "🐛", "🔥", "⚠️", "👩‍💻", "🧶", "😀", "❌", "📦"];

pub(super) const AGENTS: &[&str] = &[
    "support-triage",
    "code-reviewer",
    "invoice-matcher",
    "release-captain",
    "data-analyst",
    "sre-oncall",
    "contract-reader",
    "procurement-bot",
    "research-assistant",
    "incident-scribe",
    "kyc-checker",
    "test-writer",
    "migration-planner",
    "support/tier-2",
    "agente-facturación",
    "翻訳-agent",
];

/// Provider, model, price of an input token in 10^-9 dollars; output is taken as four times that.
pub(super) const MODELS: &[(&str, &str, u64)] = &[
    ("openai", "gpt-5-mini", 250),
    ("openai", "gpt-4.1", 2_000),
    ("google", "gemini-2.5-flash", 300),
    ("mistral", "mistral-large-2411", 2_000),
    ("meta", "llama-3.3-70b-instruct", 720),
    ("local", "qwen3-32b-q4", 1),
];

/// What a tool takes and gives back.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    File,
    Edit,
    Command,
    Sql,
    Http,
    Search,
    Mail,
}

/// Name, server, shape.
pub(super) const TOOLS: &[(&str, &str, Shape)] = &[
    ("read_file", "filesystem", Shape::File),
    ("write_file", "filesystem", Shape::Edit),
    ("apply_patch", "filesystem", Shape::Edit),
    ("run_command", "shell", Shape::Command),
    ("run_tests", "shell", Shape::Command),
    ("query_database", "postgres", Shape::Sql),
    ("explain_query", "postgres", Shape::Sql),
    ("http_request", "fetch", Shape::Http),
    ("create_ticket", "tracker", Shape::Http),
    ("search_documents", "knowledge", Shape::Search),
    ("vector_search", "knowledge", Shape::Search),
    ("search_code", "repository", Shape::File),
    ("send_email", "mail", Shape::Mail),
];

pub(super) const ACTIONS: &[&str] = &[
    "deploy_production",
    "delete_records",
    "issue_refund",
    "send_contract",
    "rotate_key",
    "merge_pull_request",
];

/// Id, name.
pub(super) const FORMS: &[(&str, &str)] = &[
    ("form_intake", "Customer intake"),
    ("form_kyc", "Know your customer"),
    ("form_änderung", "Änderungsantrag"),
];

/// Rule, name, condition.
pub(super) const ALERTS: &[(&str, &str, &str)] = &[
    ("rule_cost_hour", "Cost per hour", "sum(cost_usd) over 1h > threshold"),
    ("rule_error_rate", "Tool error rate", "rate(tool_error) / rate(tool_call) > threshold"),
    ("rule_latency_p99", "Model latency p99", "p99(latency_ms) over 5m > threshold"),
    ("rule_loop", "Repeated tool call", "count(same tool_call) over 10m >= threshold"),
];

pub(super) const CUSTOM_TYPES: &[&str] =
    &["checkpoint_saved", "plan.updated", "memory_write", "guardrail_score", "état"];

pub(super) const ERROR_CODES: &[&str] =
    &["ETIMEDOUT", "ECONNRESET", "E_NOT_FOUND", "E_VALIDATION", "429", "PERMISSION_DENIED"];

pub(super) const EXTENSIONS: &[&str] = &[".rs", ".py", ".ts", ".sql", ".yaml", ".md", ".go"];

/// Its length shares no factor with 7, the stride by which members pick their keys, so none repeats. Some need
/// care: with quotes, spaces, dots, beyond ASCII, empty-looking, or the same but for case.
pub(super) const KEYS: &[&str] = &[
    "status",
    "id",
    "owner",
    "created",
    "score",
    "Status",
    "region",
    "amount",
    "currency",
    "retries",
    "notes",
    "parent",
    "zone",
    "checksum",
    "a.b",
    "weight",
    "seen_at",
    "größe",
    "customer",
    "path",
    "kind",
    "名前",
    "line",
    "version",
    "a b",
    "email",
    "active",
    "__proto",
    "$ref",
    "quantity",
    "bytes",
    "summary",
    "\\u00e9t",
    "\\\"q\\\"",
];

const _: () = assert!(!KEYS.len().is_multiple_of(7));

/// Numbers that do not survive a round trip through a double or a 64-bit integer.
pub(super) const NUMBERS: &[&str] = &[
    "9007199254740993",
    "-9007199254740995",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "-0",
    "-0.0",
    "0.0",
    "1.0",
    "1e-7",
    "1E+2",
    "-2.50",
    "0.1",
    "0.30000000000000004",
    "1e300",
    "5e-324",
    "100000000000000000000.5",
];

pub(super) const fn offset(fraction_digits: usize, offset: &'static str, offset_minutes: i64) -> ClockStyle {
    ClockStyle { fraction_digits, offset, offset_minutes }
}

pub(super) const CLOCK_STYLES: &[ClockStyle] = &[
    UTC,
    offset(3, "Z", 0),
    offset(3, "Z", 0),
    offset(0, "Z", 0),
    offset(6, "+00:00", 0),
    offset(3, "+02:00", 120),
    offset(6, "-05:00", -300),
    offset(0, "+05:45", 345),
];
