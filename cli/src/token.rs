//! `quipu token`: make, list and revoke tokens.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use crate::args::ConnectArgs;
use crate::client::{Client, Request};
use crate::output::{harmless, print, table};
use crate::time_arg::{expiry, now};

/// Arguments of `quipu token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; its text is shown this once
    Create(CreateArgs),
    /// List tokens, never their texts
    List(ListArgs),
    /// Revoke a token
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quipu token create --scope events:write --name agent-7 --expires 30d
  export QUIPU_TOKEN=\"$(quipu token create --scope '*' --only-token)\"

The first token of a ledger needs no other.")]
struct CreateArgs {
    /// What it may do: events:read, events:write, tokens:admin, …, or '*' for everything in its tenant
    #[arg(long, value_name = "SCOPE", required = true, num_args = 1.., value_delimiter = ',')]
    scope: Vec<String>,
    /// What to call it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Whose it is [default: the tenant of the token that makes it]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// When it ends: 30d, 12h, or an RFC 3339 time [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Print the token's text alone
    #[arg(long, conflicts_with = "json")]
    only_token: bool,
    /// The server's reply as it came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Another tenant's
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The server's reply as it came
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The token's id, as `quipu token list` shows it
    #[arg(value_name = "ID")]
    id: String,
    /// Another tenant's
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Deserialize)]
struct Token {
    id: String,
    name: String,
    tenant: String,
    scopes: Vec<String>,
    created_at: String,
    expires_at: Option<String>,
    #[serde(default)]
    revoked_at: Option<String>,
    #[serde(default)]
    last_used_at: Option<String>,
    #[serde(default)]
    token: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        TokenCommand::Create(args) => create(args),
        TokenCommand::List(args) => list(args),
        TokenCommand::Revoke(args) => revoke(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let mut body = json!({ "scopes": args.scope });
    for (name, value) in [("name", &args.name), ("tenant", &args.tenant)] {
        if let Some(value) = value {
            body[name] = value.as_str().into();
        }
    }
    if let Some(expires) = &args.expires {
        body["expires_at"] = expiry(expires, now())?.to_string().into();
    }
    let client = Client::connect(&args.connect)?;
    let reply = client.ask(&Request::post(&["v1", "auth", "tokens"], &body.to_string()))?;
    if args.json {
        return print(&reply);
    }
    let made: Token = serde_json::from_str(&reply).context("the answer is no token")?;
    let text = made.token.context("the answer holds no token")?;
    if args.only_token {
        return print(&text);
    }
    let until = made.expires_at.as_deref().unwrap_or("never");
    print(&format!(
        "token    {text}\nid       {}\nname     {}\ntenant   {}\nscopes   {}\nexpires  {until}\n\
         This is the only time it is shown; keep it in QUIPU_TOKEN.",
        made.id,
        harmless(&made.name),
        made.tenant,
        made.scopes.join(" "),
    ))
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let client = Client::connect(&args.connect)?;
    let request = Request::get(&["v1", "auth", "tokens"]).parameter("tenant", args.tenant.as_deref());
    let reply = client.ask(&request)?;
    if args.json {
        return print(&reply);
    }
    let tokens: Vec<Token> = serde_json::from_str(&reply).context("the answer is no list of tokens")?;
    let rows: Vec<Vec<String>> = tokens.iter().map(row).collect();
    print(&table(&["id", "name", "state", "scopes", "created", "last used"], &rows))
}

fn row(token: &Token) -> Vec<String> {
    let is_expired = |at: &String| *at <= now().to_string();
    // Times of this form sort as text.
    let state = match (&token.revoked_at, &token.expires_at) {
        (Some(at), _) => format!("revoked {}", day(at)),
        (None, Some(at)) if is_expired(at) => format!("expired {}", day(at)),
        (None, Some(at)) => format!("until {}", day(at)),
        (None, None) => "good".to_owned(),
    };
    let used = token.last_used_at.as_deref().map_or("never", minute);
    vec![
        token.id.clone(),
        harmless(&token.name),
        state,
        token.scopes.join(" "),
        minute(&token.created_at).to_owned(),
        used.to_owned(),
    ]
}

fn day(time: &str) -> &str {
    time.get(..10).unwrap_or(time)
}

fn minute(time: &str) -> &str {
    time.get(..16).unwrap_or(time)
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let client = Client::connect(&args.connect)?;
    let request =
        Request::delete(&["v1", "auth", "tokens", &args.id]).parameter("tenant", args.tenant.as_deref());
    let reply = client.send(&request)?.accepted()?;
    let effective_at =
        reply.headers.get("quipu-effective-at").and_then(|v| v.to_str().ok()).map(str::to_owned);
    if args.json {
        return print(&json!({ "id": args.id, "revoked": true, "effective_at": effective_at }).to_string());
    }
    let when = effective_at.map_or(String::new(), |at| format!("; it is refused everywhere from {at} on"));
    print(&format!("revoked {}{when}", args.id))
}
