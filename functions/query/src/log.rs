//! The log of the caller's tenant: checkpoint, tiles, headers, and proofs made from them (docs/format.md, section 8).
//!
//! What is handed out is checked first against a checkpoint that the log key signed, so that a damaged archive gives an
//! error and never a proof that fails elsewhere.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use quipu_core::auth::{Principal, Scope};
use quipu_core::error::ErrorCode;
use quipu_core::event::Event;
use quipu_core::http::{Access, ApiError, Params, Routes, SharedApp, json_response};
use quipu_core::ids::{EventId, TenantId, hex};
use quipu_core::limits;
use quipu_core::log::bloom::Bloom;
use quipu_core::log::checkpoint::Checkpoint;
use quipu_core::log::header::BatchHeader;
use quipu_core::log::keys::KeyChain;
use quipu_core::log::merkle::{consistency_ranges, verify_consistency};
use quipu_core::log::proof::LogProof;
use quipu_core::log::tiles::Tile;
use quipu_core::log::{LogError, LogReader};
use quipu_core::objects::ObjectError;
use quipu_core::store::StoreError;
use serde_json::json;

use super::native::{id, not_found};

/// What never changes under its name. Private, since it takes a token.
const FOR_EVER: &str = "private, max-age=31536000, immutable";

/// Its routes.
pub(crate) fn routes(app: SharedApp) -> Routes {
    let read = Access::Scope(Scope::EventsRead);
    Routes::new(app)
        .add(Method::GET, "/v1/log/checkpoint", read, checkpoint)
        .add(Method::GET, "/v1/log/tile/{*path}", read, tile)
        .add(Method::GET, "/v1/log/batches/{n}", read, batch)
        .add(Method::GET, "/v1/log/consistency", read, consistency)
        .add(Method::GET, "/v1/events/{id}/proof", read, event_proof)
}

fn reader(app: &SharedApp, tenant: &TenantId) -> Result<LogReader, ApiError> {
    let none = || ApiError::because(ErrorCode::NotFound, "this server keeps no archive");
    Ok(LogReader::new(app.objects.clone().ok_or_else(none)?, tenant.clone()))
}

/// An object that a log must have and has not is damage: what may be absent is asked for as such.
fn fault(error: LogError) -> ApiError {
    let code = match &error {
        LogError::Object(ObjectError::Unavailable { .. } | ObjectError::Unknown { .. }) => {
            ErrorCode::Unavailable
        }
        LogError::Object(ObjectError::NotFound { .. } | ObjectError::Conflict { .. })
        | LogError::Damaged { .. } => ErrorCode::Corrupt,
        LogError::OutOfRange => ErrorCode::Internal,
    };
    ApiError::fault(code, error.to_string())
}

fn corrupt(why: impl std::fmt::Display) -> ApiError {
    ApiError::fault(ErrorCode::Corrupt, why.to_string())
}

fn answer(content_type: &'static str, cache: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, HeaderValue::from_static(cache)),
    ];
    (StatusCode::OK, headers, body).into_response()
}

async fn keys(app: &SharedApp) -> Result<KeyChain, ApiError> {
    let identity = app.ledger.identity().await?;
    let rotations = identity.rotations.iter().map(String::as_str);
    KeyChain::new(&identity.deployment, identity.log_key.clone(), rotations).map_err(corrupt)
}

/// The newest checkpoint, checked.
async fn newest(
    app: &SharedApp,
    reader: &LogReader,
) -> Result<Option<(String, Checkpoint, KeyChain)>, ApiError> {
    let Some((note, _)) = reader.checkpoint().await.map_err(fault)? else { return Ok(None) };
    let keys = keys(app).await?;
    let checkpoint = keys.open_checkpoint(reader.tenant(), &note).map_err(corrupt)?;
    Ok(Some((note, checkpoint, keys)))
}

/// `GET /v1/log/checkpoint`: the newest, as a signed note. 404 if the tenant has no log yet.
async fn checkpoint(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, ApiError> {
    let reader = reader(&app, &principal.tenant)?;
    let (note, ..) = newest(&app, &reader).await?.ok_or_else(|| not_found("Log"))?;
    Ok(answer("text/plain; charset=utf-8", "no-cache", note))
}

/// `GET /v1/log/tile/…`: a tile or an entry bundle, by its path in c2sp.org/tlog-tiles.
async fn tile(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(path): Path<String>,
) -> Result<Response, ApiError> {
    let reader = reader(&app, &principal.tenant)?;
    let tile = Tile::parse(&format!("tile/{path}")).ok_or_else(|| not_found("Tile"))?;
    let bytes = reader.tile_bytes(tile).await.map_err(fault)?.ok_or_else(|| not_found("Tile"))?;
    Ok(answer("application/octet-stream", FOR_EVER, bytes))
}

/// `GET /v1/log/batches/{n}`: the header of a batch, byte for byte, since the next one names its hash.
async fn batch(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(number): Path<String>,
) -> Result<Response, ApiError> {
    let reader = reader(&app, &principal.tenant)?;
    let number = number.parse().ok().filter(|n: &u64| *n > 0 && n.to_string() == number);
    let number = number.ok_or_else(|| not_found("Batch"))?;
    let bytes = reader.header(number).await.map_err(fault)?.ok_or_else(|| not_found("Batch"))?;
    Ok(answer("application/json", FOR_EVER, bytes))
}

/// `GET /v1/log/consistency?from=&to=`: that the log of `to` leaves (by default all) begins with that of `from`.
///
/// 400 unless `from` is at most `to` and the log has that many; 404 without a log.
async fn consistency(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut params = Params::read(request.uri())?;
    let (from, to) = (params.number::<u64>("from")?, params.number::<u64>("to")?);
    params.end()?;
    let reader = reader(&app, &principal.tenant)?;
    let (_, checkpoint, _) = newest(&app, &reader).await?.ok_or_else(|| not_found("Log"))?;
    let size = checkpoint.tree_size;
    let to = to.unwrap_or(size);
    if !(1..=size).contains(&to) {
        return Err(ApiError::parameter("to", format!("must be from 1 to {size}, the leaves of the log")));
    }
    let from = from.ok_or_else(|| ApiError::parameter("from", "must be given: a number of leaves"))?;
    if !(1..=to).contains(&from) {
        return Err(ApiError::parameter("from", format!("must be from 1 to {to}")));
    }
    // All from the tiles of the whole log: partial ones of sizes between checkpoints were never written.
    let hashes = reader.roots(&consistency_ranges(from, to), size).await.map_err(fault)?;
    let roots = reader.roots(&[0..from, 0..to, 0..size], size).await.map_err(fault)?;
    let [from_root, to_root, root] = roots[..] else { return Err(corrupt("three roots were asked for")) };
    if root != checkpoint.root || !verify_consistency(from, &from_root, to, &to_root, &hashes) {
        return Err(corrupt("the tiles do not give the root of the checkpoint"));
    }
    let hashes: Vec<String> = hashes.iter().map(|hash| hex(hash)).collect();
    let body = json!({
        "from": from,
        "from_root": hex(&from_root),
        "to": to,
        "to_root": hex(&to_root),
        "hashes": hashes,
    });
    Ok(json_response(StatusCode::OK, body.to_string()))
}

/// `GET /v1/events/{id}/proof`: that the event is in the log, to be verified without this server.
///
/// 1. 404: no archive, or no such event
/// 2. 409 `not_in_log_yet`, with `Retry-After`: it is not archived, or no checkpoint covers it
/// 3. 500: the proof does not verify; it is never handed out
async fn event_proof(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(event): Path<String>,
) -> Result<Response, ApiError> {
    // 1.
    let tenant = &principal.tenant;
    let reader = reader(&app, tenant)?;
    let event = id("Event", EventId::parse(&event))?;
    let event = app.ledger.event(tenant, event).await?.ok_or_else(|| not_found("Event"))?;
    // 2.
    let not_yet = || ApiError::new(ErrorCode::NotInLogYet);
    let index = leaf(&app, &reader, &event).await?.ok_or_else(not_yet)?;
    let (note, checkpoint, keys) = newest(&app, &reader).await?.ok_or_else(not_yet)?;
    if index >= checkpoint.tree_size {
        return Err(not_yet());
    }
    // 3.
    let hashes = reader.inclusion_proof(index, checkpoint.tree_size).await.map_err(fault)?;
    let proof = LogProof { extra: None, index, hashes, checkpoint: note };
    proof.verify(&keys, tenant, &event.hash).map_err(corrupt)?;
    let body = json!({
        "event_id": event.event_id,
        "session_id": event.session_id,
        "sequence": event.sequence.get(),
        "hash": event.hash,
        "leaf_index": index,
        "tree_size": checkpoint.tree_size,
        "proof": proof.text(),
    });
    Ok(json_response(StatusCode::OK, body.to_string()))
}

/// Batches of the catalogue that are read at once while an event's is looked for.
const BATCHES_AT_ONCE: usize = limits::PAGE_EVENTS_DEFAULT;

/// The index of an event's leaf; `None` if it is not archived.
async fn leaf(app: &SharedApp, reader: &LogReader, event: &Event) -> Result<Option<u64>, ApiError> {
    let store = app.ledger.store();
    let Some(pointer) = store.pointer(&event.tenant, &event.session_id).await? else { return Ok(None) };
    if pointer.archived.head.sequence < event.sequence {
        return Ok(None);
    }
    let commit = event.event_id.commit();
    let mut after = pointer.first_batch.saturating_sub(1);
    while after < pointer.last_batch {
        let batches = store.batches(&event.tenant, after, BATCHES_AT_ONCE).await?;
        let Some(last) = batches.last() else { break };
        after = last.batch;
        for record in batches {
            // Commits say it nearly; the filter spares the headers of batches that overlap.
            let may = record.commits.0 <= commit && commit <= record.commits.1;
            let session = Bloom::from_bytes(record.blooms[0].clone());
            if !may || session.is_some_and(|bloom| !bloom.contains(event.session_id.as_str())) {
                continue;
            }
            let bytes = reader.header(record.batch).await.map_err(fault)?;
            let bytes = bytes.ok_or_else(|| corrupt(format!("batch {} has no header", record.batch)))?;
            let header = BatchHeader::parse(&bytes).map_err(corrupt)?;
            if let Some(index) = header.leaf_of(&event.session_id, event.sequence) {
                return Ok(Some(index));
            }
        }
    }
    Err(StoreError::Corrupt {
        key: "the catalogue of batches".into(),
        why: "no batch holds what is archived".into(),
    }
    .into())
}
