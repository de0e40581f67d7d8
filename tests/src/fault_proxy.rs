//! A reverse proxy before the stand-in of DynamoDB or S3 that breaks chosen calls as a network or a service does.
//!
//! It knows the operation from `X-Amz-Target`, or of S3 from method and query, counts every request that arrives (an
//! SDK's retry is a request of its own, as on the bill), and does to the nth of an operation what was planned for it.
//! Everything else goes through as it came: bodies whole, `x-amz-crc32` and all other headers but the hop-by-hop ones.
//!
//! It runs on a thread of its own, so that a test may block.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WireFault {
    /// Applied; the connection is closed without an answer.
    DropReply,
    /// Not applied; the connection is closed without an answer.
    DropRequest,
    /// Not applied; 500 `InternalServerError`.
    Status500,
    /// Applied; 500 `InternalServerError`.
    Status500AfterApply,
    /// Not applied; 400 `ProvisionedThroughputExceededException`, or of S3 503 `SlowDown`.
    Throttle,
    /// Not applied; 400 `TransactionConflictException`, or for `TransactWriteItems`
    /// `TransactionCanceledException` with a reason for each item, of which the last is the conflict.
    TransactionConflict,
    /// Forwarded only after this time, also if the caller has gone by then.
    Slow(Duration),
    /// Applied at once, answered only after this time.
    SlowAfterApply(Duration),
}

impl WireFault {
    /// Whether the service could do this to such a call.
    fn fits(self, operation: &str) -> bool {
        let writes = ["PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"];
        self != Self::TransactionConflict || writes.contains(&operation)
    }
}

/// A running proxy. It ends when it is dropped.
pub struct FaultProxy {
    url: String,
    plan: Arc<Mutex<Plan>>,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts it on a free loopback port before `upstream` (`http://127.0.0.1:PORT`), without any fault.
    pub fn start(upstream: &str) -> Self {
        let authority = upstream.trim_end_matches('/').strip_prefix("http://").expect("http://ADDRESS:PORT");
        let upstream: SocketAddr = authority.parse().expect("http://ADDRESS:PORT");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket that tokio can use");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let plan = Arc::new(Mutex::new(Plan::default()));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&plan);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("the socket");
                tokio::select! {
                    () = accept(listener, upstream, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { url, plan, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Plans a fault for the nth call of an operation (`PutItem`) from now on; the next one is the first.
    pub fn fail(&self, operation: &str, nth: u64, fault: WireFault) {
        assert!(nth > 0, "the next call is the first");
        assert!(fault.fits(operation), "DynamoDB never answers {operation} with {fault:?}");
        let mut plan = lock(&self.plan);
        let at = plan.calls.get(operation).copied().unwrap_or(0) + nth;
        let old = plan.planned.insert((operation.to_owned(), at), fault);
        assert_eq!(old, None, "{operation} has a fault planned for that call");
    }

    /// From now on each call on data meets a fault by chance, at most one; the same seed and the same order of
    /// calls give the same faults. What was planned for a call goes before.
    pub fn fail_randomly(&self, seed: u64, chances: &[(f64, WireFault)]) {
        let sum: f64 = chances.iter().map(|(chance, _)| chance).sum();
        assert!((0.0..=1.0).contains(&sum), "the chances add up to {sum}");
        lock(&self.plan).random = Some(Random { state: seed, chances: chances.to_vec() });
    }

    /// How many calls of an operation have arrived since the start or the last reset.
    pub fn calls(&self, operation: &str) -> u64 {
        lock(&self.plan).calls.get(operation).copied().unwrap_or(0)
    }

    /// The same for all operations that were called.
    pub fn all_calls(&self) -> BTreeMap<String, u64> {
        lock(&self.plan).calls.clone()
    }

    /// How many calls have met a fault.
    pub fn faults(&self) -> u64 {
        lock(&self.plan).met
    }

    /// How many planned faults no call has met yet.
    pub fn pending(&self) -> usize {
        lock(&self.plan).planned.len()
    }

    /// How many calls have arrived and are not over: those that are to be applied late are among them.
    pub fn under_way(&self) -> u64 {
        lock(&self.plan).under_way
    }

    /// Forgets all counts, plans and chances.
    pub fn reset(&self) {
        let mut plan = lock(&self.plan);
        let under_way = plan.under_way;
        *plan = Plan { under_way, ..Plan::default() };
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the proxy has been printed; a second one here would hide the test's own.
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Plan {
    calls: BTreeMap<String, u64>,
    planned: BTreeMap<(String, u64), WireFault>,
    random: Option<Random>,
    met: u64,
    under_way: u64,
}

impl Plan {
    fn arrive(&mut self, operation: &str) -> Option<WireFault> {
        let count = self.calls.entry(operation.to_owned()).or_default();
        *count += 1;
        self.under_way += 1;
        let planned = self.planned.remove(&(operation.to_owned(), *count));
        let fault = planned.or_else(|| self.random.as_mut().and_then(|random| random.draw(operation)));
        self.met += u64::from(fault.is_some());
        fault
    }
}

struct Random {
    state: u64,
    chances: Vec<(f64, WireFault)>,
}

impl Random {
    fn draw(&mut self, operation: &str) -> Option<WireFault> {
        // A table is made and looked at by the test itself.
        if operation.is_empty() || operation.contains("Table") || operation.contains("TimeToLive") {
            return None;
        }
        let mut left = self.unit();
        for (chance, fault) in &self.chances {
            if left < *chance {
                return fault.fits(operation).then_some(*fault);
            }
            left -= chance;
        }
        None
    }

    /// SplitMix64, as a fraction of one.
    fn unit(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    // An assertion of a test may have failed while it held the plan: the plan itself is whole.
    plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

type Reply = Response<Full<Bytes>>;

async fn accept(listener: TcpListener, upstream: SocketAddr, plan: Arc<Mutex<Plan>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("the listener lives as long as the proxy");
        let connection = Arc::new(Connection { upstream, plan: Arc::clone(&plan), kept: Default::default() });
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(|request| {
                let connection = Arc::clone(&connection);
                // A task of its own: a caller who gives up must not stop a request that is on its way.
                let exchange = tokio::spawn(async move { connection.exchange(request).await });
                async { exchange.await.unwrap_or_else(|panic| Err(io::Error::other(panic))) }
            });
            // An error is how a connection is closed without an answer; or the caller went away.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// One of a caller's connections, and the one to the stand-in that goes with it.
struct Connection {
    upstream: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    kept: tokio::sync::Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Connection {
    /// One call. An error closes the caller's connection without an answer.
    async fn exchange(&self, request: Request<Incoming>) -> io::Result<Reply> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let operation = operation_of(&parts);
        remove_hop_by_hop(&mut parts.headers);
        let items = items_in(&operation, &body);
        let is_s3 = !parts.headers.contains_key("x-amz-target");
        let request = Request::from_parts(parts, Full::new(body));

        let fault = lock(&self.plan).arrive(&operation);
        let reply = self.answer(request, fault, items, is_s3).await;
        lock(&self.plan).under_way -= 1;
        reply
    }

    async fn answer(
        &self,
        request: Request<Full<Bytes>>,
        fault: Option<WireFault>,
        items: Option<usize>,
        is_s3: bool,
    ) -> io::Result<Reply> {
        match fault {
            None => self.forward(request).await,
            Some(WireFault::DropRequest) => Err(dropped()),
            Some(WireFault::DropReply) => self.forward(request).await.and(Err(dropped())),
            Some(WireFault::Status500) => Ok(internal_server_error(is_s3)),
            Some(WireFault::Status500AfterApply) => {
                self.forward(request).await.map(|_| internal_server_error(is_s3))
            }
            Some(WireFault::Throttle) => Ok(throttled(is_s3)),
            Some(WireFault::TransactionConflict) => Ok(conflict(items)),
            Some(WireFault::Slow(time)) => {
                tokio::time::sleep(time).await;
                self.forward(request).await
            }
            Some(WireFault::SlowAfterApply(time)) => {
                let reply = self.forward(request).await;
                tokio::time::sleep(time).await;
                reply
            }
        }
    }

    async fn forward(&self, request: Request<Full<Bytes>>) -> io::Result<Reply> {
        let mut kept = self.kept.lock().await;
        let old = match kept.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match old {
            Some(sender) => sender,
            None => connect(self.upstream).await?,
        };
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let (mut parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        *kept = Some(sender);
        remove_hop_by_hop(&mut parts.headers);
        Ok(Response::from_parts(parts, Full::new(body)))
    }
}

async fn connect(upstream: SocketAddr) -> io::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

fn dropped() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "a planned fault")
}

/// Those that are about one connection (RFC 9110, section 7.6.1). Bodies are sent with their length.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// How many items a transaction has; nothing for other calls.
fn items_in(operation: &str, body: &[u8]) -> Option<usize> {
    let is_transaction = operation == "TransactWriteItems";
    let input: Value = is_transaction.then(|| serde_json::from_slice(body).ok()).flatten()?;
    input["TransactItems"].as_array().map(Vec::len)
}

/// The operation as the service's reference names it; nothing if it is not known.
fn operation_of(parts: &Parts) -> String {
    if let Some(target) = parts.headers.get("x-amz-target") {
        return target.to_str().unwrap_or("").rsplit('.').next().unwrap_or("").to_owned();
    }
    let query = parts.uri.query().unwrap_or("");
    let named = query.split('&').find_map(|pair| pair.strip_prefix("x-id="));
    let operation = match named {
        Some(name) => name,
        None if query.contains("list-type=2") => "ListObjectsV2",
        None if parts.method == Method::HEAD && parts.uri.path().matches('/').count() > 1 => "HeadObject",
        None => "",
    };
    operation.to_owned()
}

fn internal_server_error(is_s3: bool) -> Reply {
    if is_s3 {
        return s3_error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            "We encountered an internal error.",
        );
    }
    reply(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InternalServerError",
        json!({"message": "Internal server error"}),
    )
}

fn throttled(is_s3: bool) -> Reply {
    if is_s3 {
        return s3_error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate.");
    }
    let message = "The level of configured provisioned throughput for the table was exceeded. Consider increasing \
        your provisioning level with the UpdateTable API.";
    reply(StatusCode::BAD_REQUEST, "ProvisionedThroughputExceededException", json!({"message": message}))
}

fn conflict(items: Option<usize>) -> Reply {
    let conflict = "Transaction is ongoing for the item";
    let Some(items) = items else {
        return reply(StatusCode::BAD_REQUEST, "TransactionConflictException", json!({"message": conflict}));
    };
    let mut reasons = vec![json!({"Code": "None"}); items];
    if let Some(last) = reasons.last_mut() {
        *last = json!({"Code": "TransactionConflict", "Message": conflict});
    }
    let codes: Vec<&str> = reasons.iter().filter_map(|reason| reason["Code"].as_str()).collect();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    // The capital M is DynamoDB's own.
    let body = json!({"CancellationReasons": reasons, "Message": message});
    reply(StatusCode::BAD_REQUEST, "TransactionCanceledException", body)
}

fn s3_error(status: StatusCode, code: &str, message: &str) -> Reply {
    let body =
        format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    let reply = Response::builder().status(status).header(header::CONTENT_TYPE, "application/xml");
    reply.body(Full::new(Bytes::from(body))).expect("a valid answer")
}

fn reply(status: StatusCode, error: &str, mut body: Value) -> Reply {
    body["__type"] = json!(format!("com.amazonaws.dynamodb.v20120810#{error}"));
    let body = body.to_string();
    let mut crc = flate2::Crc::new();
    crc.update(body.as_bytes());
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amzn-requestid", "FAULTPROXY0000000000000000000000000000000000000000000")
        .header("x-amz-crc32", crc.sum())
        .body(Full::new(Bytes::from(body)))
        .expect("a valid answer")
}
