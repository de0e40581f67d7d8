//! Routes with what they need to be entered. No handler can be added without saying so, and the table of routes is
//! what the authorization matrix of the tests walks.

use std::convert::Infallible;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};

use super::{ApiError, SharedApp};
use crate::auth::Scope;
use crate::error::ErrorCode;

/// What a request must bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// Any credential that is good.
    Any,
    /// A credential with this scope.
    Scope(Scope),
    /// A credential with this scope, or none at all while there is no first token: the handler decides.
    Bootstrap(Scope),
}

/// One route, for tests and documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with `{name}` for a variable part.
    pub path: &'static str,
    /// What it needs.
    pub access: Access,
}

/// Routes while they are gathered.
pub struct Routes {
    app: SharedApp,
    router: Router<SharedApp>,
    table: Vec<Route>,
}

impl Routes {
    /// None yet.
    pub fn new(app: SharedApp) -> Self {
        Self { app, router: Router::new(), table: Vec::new() }
    }

    /// Adds a route. Handlers of routes other than [`Access::Open`] find a [`Principal`](crate::auth::Principal)
    /// among the request's extensions (an `Option` of it where access is [`Access::Bootstrap`]).
    ///
    /// # Panics
    /// If the method is none that a route can have.
    #[must_use]
    pub fn add<H, T>(mut self, method: Method, path: &'static str, access: Access, handler: H) -> Self
    where
        H: Handler<T, SharedApp>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("a method that routes can have");
        let guard = middleware::from_fn_with_state((self.app.clone(), access), enter);
        self.router = self.router.route(path, on(filter, handler).layer(guard));
        self.table.push(Route { method, path, access });
        self
    }

    /// Adds the routes of another.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.table.extend(other.table);
        self
    }

    /// The router, with its table.
    pub fn into_parts(self) -> (Router, Vec<Route>) {
        (self.router.with_state(self.app), self.table)
    }
}

/// Lets a request in, or not: 401 without a good credential, 403 without the scope.
async fn enter(
    State((app, access)): State<(SharedApp, Access)>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let needed = match access {
        Access::Open => return Ok(next.run(request).await),
        Access::Any => None,
        Access::Scope(scope) | Access::Bootstrap(scope) => Some(scope),
    };
    let admitted = app.gate.admit(request.headers(), request.uri()).await;
    let principal = match (access, admitted) {
        (_, Ok(principal)) => Some(principal),
        (Access::Bootstrap(_), Err(error)) if may_bootstrap(&app, request.headers(), &error).await? => None,
        (_, Err(error)) => return Err(error.into()),
    };
    if let (Some(principal), Some(scope)) = (&principal, needed)
        && !principal.may(scope)
    {
        return Err(ApiError::because(ErrorCode::Forbidden, format!("this needs the scope {scope}")));
    }
    match principal {
        Some(principal) => {
            request.extensions_mut().insert(Some(principal.clone()));
            request.extensions_mut().insert(principal);
        }
        None => {
            request.extensions_mut().insert(None::<crate::auth::Principal>);
        }
    }
    Ok(next.run(request).await)
}

/// The first token needs no authorization, once; where the deployment has a bootstrap secret, that.
async fn may_bootstrap(
    app: &SharedApp,
    headers: &HeaderMap,
    error: &crate::auth::AuthError,
) -> Result<bool, ApiError> {
    use crate::auth::AuthError;
    use subtle::ConstantTimeEq as _;
    let credential = headers.get(header::AUTHORIZATION);
    let passes = match (&app.bootstrap_secret, error) {
        (None, AuthError::Missing) => true,
        (Some(secret), AuthError::Invalid) => credential
            .and_then(|v| v.as_bytes().split_at_checked("Bearer ".len()))
            .is_some_and(|(_, presented)| presented.ct_eq(secret.as_bytes()).into()),
        _ => false,
    };
    Ok(passes && !app.ledger.store().bootstrapped().await?)
}

/// What stands around all routes: errors for paths and methods that are not there, safe headers, one log line.
pub fn finish(router: Router) -> Router {
    router
        .fallback(|| async { ApiError::because(ErrorCode::NotFound, "Not found") })
        .method_not_allowed_fallback(|| async { ApiError::new(ErrorCode::MethodNotAllowed) })
        .layer(middleware::from_fn(around))
}

async fn around(request: Request, next: Next) -> Result<Response, Infallible> {
    let started = Instant::now();
    let method = request.method().clone();
    // The path alone: a query may hold what somebody searched for.
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let status = response.status();
    let micros = started.elapsed().as_micros() as u64;
    tracing::debug!(%method, path, status = status.as_u16(), micros, "request");
    if status == StatusCode::BAD_REQUEST && !response.headers().contains_key(header::CONTENT_TYPE) {
        // A refusal by the framework itself (a path that is not UTF-8, for one): give it our shape.
        return Ok(ApiError::because(ErrorCode::InvalidParameter, "malformed request").into_response());
    }
    Ok(response)
}
