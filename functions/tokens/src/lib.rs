//! Tokens and tenants: `/v1/auth/tokens`, `/v1/tenants`.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use quipu_core::auth::{Principal, Scope, Scopes, Secret, TokenRecord};
use quipu_core::error::ErrorCode;
use quipu_core::http::{Access, ApiError, Routes, SharedApp, json_response, read_body};
use quipu_core::ids::{TenantId, check_text};
use quipu_core::json::{Kind, Reader};
use quipu_core::store::{Conflict, StoreError, TenantRecord};
use quipu_core::time::Micros;
use quipu_core::{limits, random};
use serde_json::json;

/// The routes of this function.
pub fn routes(app: SharedApp) -> Routes {
    let tokens = Access::Scope(Scope::TokensAdmin);
    let tenants = Access::Scope(Scope::TenantsAdmin);
    Routes::new(app)
        .add(Method::POST, "/v1/auth/tokens", Access::Bootstrap(Scope::TokensAdmin), create_token)
        .add(Method::GET, "/v1/auth/tokens", tokens, list_tokens)
        .add(Method::DELETE, "/v1/auth/tokens/{id}", tokens, revoke_token)
        .add(Method::POST, "/v1/tenants", tenants, create_tenant)
        .add(Method::GET, "/v1/tenants", tenants, list_tenants)
}

/// What `POST /v1/auth/tokens` takes.
#[derive(Default)]
struct NewToken {
    name: Option<String>,
    scopes: Option<Scopes>,
    tenant: Option<TenantId>,
    expires_at: Option<Micros>,
}

impl NewToken {
    fn read(text: &str) -> Result<Self, ApiError> {
        let mut this = Self::default();
        let mut reader = Reader::new(text);
        let walked = reader.object(|reader, name| {
            if reader.null()? {
                return Ok(());
            }
            match name {
                "name" => {
                    let name = reader.string()?;
                    check_text(&name, "token_name_bytes_max", limits::TOKEN_NAME_BYTES_MAX)
                        .map_err(|why| reader.refuse(why))?;
                    this.name = Some(name.into_owned());
                }
                "scopes" => {
                    let mut scopes = Scopes::NONE;
                    reader.array(|reader, _| {
                        let word = reader.string()?;
                        let known = || Scope::EVERY.map(Scope::as_str).join(", ");
                        let scope = Scope::parse(&word)
                            .ok_or_else(|| reader.refuse(format!("unknown scope; known are {}", known())))?;
                        scopes = scopes.with(scope);
                        Ok(())
                    })?;
                    this.scopes = Some(scopes);
                }
                "tenant" => {
                    let tenant = TenantId::parse(reader.string()?);
                    this.tenant = Some(tenant.map_err(|why| reader.refuse(why))?);
                }
                "expires_at" => {
                    let time = Micros::parse(&reader.string()?);
                    this.expires_at = Some(time.map_err(|why| reader.refuse(why))?);
                }
                _ => return Err(reader.refuse("unknown field")),
            }
            Ok(())
        });
        match walked.and_then(|()| reader.end()) {
            Ok(()) => Ok(this),
            Err(error) if is_value_fault(&error.problem) => {
                Err(ApiError::invalid(error.path.clone(), error.problem.to_string()))
            }
            Err(error) => Err(quipu_core::dialect::intake::IntakeError::Json(error).into()),
        }
    }
}

fn is_value_fault(problem: &quipu_core::json::Problem) -> bool {
    matches!(problem, quipu_core::json::Problem::Refused(_) | quipu_core::json::Problem::Type { .. })
}

/// `POST /v1/auth/tokens`.
///
/// 1. 400: the body
/// 2. 403: nobody mints a scope that they lack, or for a tenant that is not theirs
/// 3. 404, 409: the tenant; the cap on tokens; the race for the first token
/// 4. 201, with the token, this once
async fn create_token(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Option<Principal>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let wanted = NewToken::read(&read_body(&parts.headers, body).await?.text)?;
    let Some(scopes) = wanted.scopes.filter(|scopes| !scopes.is_empty()) else {
        return Err(ApiError::invalid(
            "scopes",
            "required: a list of at least one scope, such as [\"events:write\"]",
        ));
    };
    let now = app.ledger.clock().now();
    if wanted.expires_at.is_some_and(|at| at <= now) {
        return Err(ApiError::invalid("expires_at", "is in the past"));
    }
    // 2
    let own = principal.as_ref().map_or_else(TenantId::default_tenant, |p| p.tenant.clone());
    let tenant = wanted.tenant.unwrap_or_else(|| own.clone());
    if let Some(principal) = &principal {
        if tenant != own && !principal.may(Scope::TenantsAdmin) {
            return Err(ApiError::because(
                ErrorCode::Forbidden,
                "a token for another tenant needs tenants:admin",
            ));
        }
        if let Some(lacking) =
            scopes.iter().find(|scope| !principal.scopes.allows(*scope, principal.is_operator()))
        {
            let why = format!("nobody can mint a scope that they lack: {lacking}");
            return Err(ApiError::because(ErrorCode::Forbidden, why));
        }
    } else if tenant != own {
        return Err(ApiError::because(ErrorCode::Forbidden, "the first token is one of the tenant default"));
    }
    if scopes.iter().any(|scope| scope == Scope::TenantsAdmin) && tenant.as_str() != TenantId::DEFAULT {
        return Err(ApiError::invalid("scopes", "tenants:admin is held in the tenant default only"));
    }
    // 3
    let store = app.ledger.store();
    if tenant.as_str() == TenantId::DEFAULT && store.tenant(&tenant).await?.is_none() {
        // The first request to a new deployment: its keys come first, so that whoever has a token can be given receipts.
        app.ledger.identity().await?;
        app.ledger.ensure_default_tenant().await?;
    }
    if store.tenant(&tenant).await?.is_none() {
        return Err(ApiError::because(ErrorCode::NotFound, format!("there is no tenant {tenant}")));
    }
    if store.tokens(&tenant).await?.len() >= limits::TOKENS_MAX {
        let why = format!("the tenant has tokens_max {} tokens", limits::TOKENS_MAX);
        return Err(ApiError::because(ErrorCode::Conflict, why));
    }
    let secret = Secret::from_random(&random::bytes());
    let token = TokenRecord {
        id: quipu_core::ids::CommitId::mint(u64::try_from(now.unix_ms()).unwrap_or(0), random::bytes())
            .to_string(),
        tenant,
        name: wanted.name.unwrap_or_else(|| "unnamed".to_owned()),
        scopes,
        hash: secret.hash(),
        created_at: now,
        expires_at: wanted.expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    match store.create_token(&token, principal.is_none()).await {
        Err(StoreError::Conflict(Conflict::Exists)) => {
            return Err(ApiError::because(ErrorCode::Unauthorized, "a first token was made already"));
        }
        other => other?,
    }
    app.gate.forget();
    // 4
    let mut shown = show(&token);
    shown["token"] = secret.reveal().into();
    Ok(json_response(StatusCode::CREATED, shown.to_string()))
}

/// A token as it may be shown: never its text, never its hash.
fn show(token: &TokenRecord) -> serde_json::Value {
    json!({
        "id": token.id,
        "name": token.name,
        "tenant": token.tenant,
        "scopes": token.scopes,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
        "last_used_at": token.last_used_at,
    })
}

/// Whose tokens are meant: one's own, or with `?tenant=` and `tenants:admin` another's.
fn tenant_of(principal: &Principal, uri: &axum::http::Uri) -> Result<TenantId, ApiError> {
    let mut params = quipu_core::http::Params::read(uri)?;
    let tenant = params.parsed("tenant", TenantId::parse)?.unwrap_or_else(|| principal.tenant.clone());
    params.end()?;
    if tenant != principal.tenant && !principal.may(Scope::TenantsAdmin) {
        return Err(ApiError::because(ErrorCode::Forbidden, "another tenant's tokens need tenants:admin"));
    }
    Ok(tenant)
}

/// `GET /v1/auth/tokens`: an array, newest last.
async fn list_tokens(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Result<Response, ApiError> {
    let tenant = tenant_of(&principal, request.uri())?;
    let tokens = app.ledger.store().tokens(&tenant).await?;
    let shown: Vec<_> = tokens.iter().map(show).collect();
    Ok(json_response(StatusCode::OK, json!(shown).to_string()))
}

/// `DELETE /v1/auth/tokens/{id}`: 204, with the time from which it holds everywhere in `Quipu-Effective-At`.
async fn revoke_token(
    State(app): State<SharedApp>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let tenant = tenant_of(&principal, request.uri())?;
    match app.ledger.store().revoke_token(&tenant, &id, app.ledger.clock().now()).await {
        Err(StoreError::NotFound) => return Err(ApiError::because(ErrorCode::NotFound, "Token not found")),
        other => other?,
    }
    app.gate.forget();
    let effective_at = app.gate.effective_at().to_string();
    Ok((StatusCode::NO_CONTENT, [("quipu-effective-at", effective_at)]).into_response())
}

/// `POST /v1/tenants`: `{"tenant":"acme"}`.
async fn create_tenant(State(app): State<SharedApp>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let text = read_body(&parts.headers, body).await?.text;
    let mut reader = Reader::new(&text);
    let mut name = None;
    let walked = reader.object(|reader, member| {
        if member != "tenant" {
            return Err(reader.refuse("unknown field"));
        }
        if reader.kind()? == Kind::Null {
            return reader.skip();
        }
        name = Some(TenantId::parse(reader.string()?).map_err(|why| reader.refuse(why))?);
        Ok(())
    });
    match walked.and_then(|()| reader.end()) {
        Err(error) if is_value_fault(&error.problem) => {
            return Err(ApiError::invalid(error.path.clone(), error.problem.to_string()));
        }
        Err(error) => return Err(quipu_core::dialect::intake::IntakeError::Json(error).into()),
        Ok(()) => {}
    }
    let Some(tenant) = name else {
        return Err(ApiError::invalid("tenant", "required: a name of 1 to 63 of a-z, 0-9 and -"));
    };
    let record = TenantRecord { tenant, created_at: app.ledger.clock().now() };
    match app.ledger.store().create_tenant(&record).await {
        Err(StoreError::Conflict(Conflict::Exists)) => {
            return Err(ApiError::because(
                ErrorCode::Conflict,
                format!("the tenant {} exists", record.tenant),
            ));
        }
        other => other?,
    }
    Ok(json_response(StatusCode::CREATED, show_tenant(&record).to_string()))
}

fn show_tenant(record: &TenantRecord) -> serde_json::Value {
    json!({ "tenant": record.tenant, "created_at": record.created_at })
}

/// `GET /v1/tenants`: an array, by name.
async fn list_tenants(State(app): State<SharedApp>) -> Result<Response, ApiError> {
    let tenants = app.ledger.store().tenants().await?;
    let shown: Vec<_> = tenants.iter().map(show_tenant).collect();
    Ok(json_response(StatusCode::OK, json!(shown).to_string()))
}
